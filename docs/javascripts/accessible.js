// What the theme makes when a page is shown, for those who use a keyboard or a screen reader.
const mended = (root) => {
  for (const table of root.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])")) {
    table.tabIndex = 0; // a table that is too wide is scrolled with the arrow keys
    table.setAttribute("role", "group");
    table.setAttribute("aria-label", "Table");
  }
  // Every button that copies code would be a landmark of its own.
  for (const buttons of root.querySelectorAll("nav.md-code__nav:not([role])")) buttons.setAttribute("role", "none");
};
new MutationObserver(() => mended(document)).observe(document.body, { childList: true, subtree: true });
mended(document);
