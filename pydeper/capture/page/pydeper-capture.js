/**
 * <pydeper-capture>: one picture, looked at through a viewport that follows attention, and described in words.
 *
 * A custom element without dependencies that sends nothing anywhere. Points are fractions of the picture from its top
 * left, with seconds since it was shown, one per frame while somebody looks; [null, null, t] says that looking
 * stopped. `pydeper-capture.d.ts` has the types, the guide "The capture widget" the events and attributes.
 */

/** Seconds without any input after which nobody is taken to be looking. */
const IDLE = 5;
/** Seconds after which an arrow key that is held moves the viewport continuously. */
const HOLD = 0.3;
/** Shorter sides of the picture that a held arrow key passes in a second. */
const KEY_SPEED = 0.5;
/** Seconds between two points at least: every frame of a usual screen, every second one of a faster screen. */
const POINT_EVERY = 0.0125;
const DRAFT_EVERY = 1;
/** Milliseconds after the last key until a screen reader hears the place. */
const ANNOUNCE_AFTER = 600;

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export const defaultTexts = {
  picture: "Picture to describe",
  pictureHelp: "Move over the picture to see it. With a keyboard, use the arrow keys; hold Shift for larger steps, and press Enter to write.",
  description: "Describe the picture in your own words",
  done: "Done",
  empty: "Write a few words about the picture first.",
  dictate: "Dictate",
  stopDictating: "Stop dictating",
  dictationNote: "Your browser may send the sound to its maker to recognise it.",
  dictationFailed: "Dictation stopped ({reason}). You can go on writing.",
  place: "{x} % from the left, {y} % from the top",
  timeLeft: "{seconds} s left to look",
  timeOver: "The time to look is over. You can still write.",
  loading: "The picture is loading.",
  loadFailed: "The picture cannot be loaded.",
  stops: "Where you stopped: {count}",
  stop: "{x} % from the left, {y} % from the top, for {seconds} s",
  noStops: "No stop was found.",
};

const STYLE = `
:host { display: block; color: inherit; font: inherit; --accent: var(--pydeper-accent, #00695c); --corner: var(--pydeper-corner, 10px); }
:host([hidden]) { display: none; }
* { box-sizing: border-box; }
.stage { position: relative; margin: 0 auto; overflow: hidden; border-radius: var(--corner); touch-action: none; user-select: none; -webkit-user-select: none; cursor: crosshair; background: #8883; outline-offset: 3px; }
.stage:focus-visible, button:focus-visible, textarea:focus-visible { outline: 3px solid var(--accent); }
.stage[data-state="loading"] { min-height: 12rem; }
canvas, svg { display: block; position: absolute; inset: 0; width: 100%; height: 100%; }
.window { position: absolute; top: 0; left: 0; overflow: hidden; border-radius: 50%; visibility: hidden; will-change: transform; pointer-events: none; -webkit-mask: radial-gradient(closest-side, #000 78%, transparent); mask: radial-gradient(closest-side, #000 78%, transparent); }
.window canvas { inset: auto; top: 0; left: 0; width: auto; height: auto; will-change: transform; }
.dot { position: absolute; top: -14px; left: -14px; width: 28px; height: 28px; border: 3px solid var(--accent); border-radius: 50%; box-shadow: 0 0 0 2px #fffc; visibility: hidden; pointer-events: none; }
.looking .window, .trace.looking .dot { visibility: visible; }
.stage.trace .window, .stage.over :is(canvas, .window, .dot), .stage.replay :is(.window, .dot), .stage:not([data-state="shown"]) :is(canvas, .window, .dot) { visibility: hidden; }
.replay { cursor: default; }
.message { position: absolute; inset: 0; display: grid; place-items: center; padding: 1rem; text-align: center; margin: 0; }
.message:empty { display: none; }
.replay path { fill: none; stroke: #fff; stroke-width: 3; paint-order: stroke; stroke-linejoin: round; }
.replay path + path { stroke: var(--accent); stroke-width: 1.5; }
.replay circle { fill: var(--accent); fill-opacity: .72; stroke: #fff; stroke-width: 2; }
.replay text { fill: #fff; font: 600 13px system-ui, sans-serif; text-anchor: middle; dominant-baseline: central; }
.replay g { transition: opacity .25s; }
.replay g.later { opacity: 0; }
.below { max-width: 48rem; margin: .75rem auto 0; }
label { display: block; font-weight: 600; margin-bottom: .35rem; }
textarea { width: 100%; min-height: 5.5rem; padding: .6rem .7rem; font: inherit; color: inherit; background: transparent; border: 1px solid currentColor; border-radius: var(--corner); resize: vertical; }
textarea[aria-invalid="true"] { border-color: #c62828; border-width: 2px; }
.row { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; margin-top: .6rem; }
button { min-height: 44px; padding: .4rem 1.2rem; font: inherit; font-weight: 600; border: 1px solid var(--accent); border-radius: var(--corner); background: transparent; color: inherit; cursor: pointer; }
button.done { background: var(--accent); color: var(--pydeper-on-accent, #fff); }
.note, .countdown { font-size: .9em; margin: .4rem 0 0; }
.error { color: light-dark(#b00020, #ff9a9a); font-weight: 600; margin: .4rem 0 0; }
.error:empty, .note:empty, .countdown:empty { display: none; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
ol { margin: .5rem auto 0; max-width: 48rem; padding-left: 2rem; font-size: .95em; }
[hidden] { display: none !important; }
@media (forced-colors: active) { .dot, .stage, button, textarea { border: 2px solid ButtonText; } .replay circle { fill: Canvas; fill-opacity: 1; stroke: CanvasText; } .replay text { fill: CanvasText; } }
@media (prefers-contrast: more) { textarea, button { border-width: 2px; } }
@media (prefers-reduced-motion: reduce) { .replay g { transition: none; } }
`;

const MARKUP = `
<p class="countdown" part="countdown" role="timer" aria-live="off"></p>
<div class="stage" part="picture" tabindex="0" role="application" aria-describedby="help">
  <canvas class="back" aria-hidden="true"></canvas>
  <div class="window" aria-hidden="true"><canvas class="front"></canvas></div>
  <div class="dot" aria-hidden="true"></div>
  <p class="message" role="status"></p>
</div>
<span id="help" class="hidden"></span>
<span class="place hidden" aria-live="polite"></span>
<ol class="stops" part="stops" hidden></ol>
<div class="below">
  <label for="text" part="label"></label>
  <textarea id="text" part="description" aria-describedby="error"></textarea>
  <p id="error" class="error" part="error" role="alert"></p>
  <div class="row"><button type="button" class="done" part="done"></button><button type="button" class="dictate" part="dictate" hidden></button></div>
  <p class="note" part="note"></p>
</div>
`;

const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const round = (value, digits) => Number(value.toFixed(digits));
const percent = (fraction) => Math.round(100 * fraction);

/** Fills the {names} of a text. */
const filled = (text, values = {}) => text.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));

/** A random name; `crypto.randomUUID` is missing on pages that are not served over TLS. */
const randomName = () => Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");

/** Where somebody looked, as points in time; nobody looks until the first `see`. */
class Recorder {
  constructor(points = [], elapsed = 0) {
    this.points = points;
    this.looking = false;
    this.inputs = new Map();
    this.begin(elapsed);
  }

  /** Time zero is so many seconds ago. */
  begin(elapsed = 0) {
    this.started = performance.now() - 1000 * elapsed;
  }

  get elapsed() {
    return (performance.now() - this.started) / 1000;
  }

  see(x, y, input) {
    this.looking = true;
    this.inputs.set(input, (this.inputs.get(input) ?? 0) + 1);
    const seconds = round(this.elapsed, 3);
    const last = this.points.at(-1);
    if (!last || last[0] === null || seconds - last[2] >= POINT_EVERY) this.points.push([round(x, 4), round(y, 4), seconds]);
  }

  interrupt() {
    if (this.looking) this.points.push([null, null, round(this.elapsed, 3)]);
    this.looking = false;
  }

  /** How they looked most of the time. */
  get input() {
    return [...this.inputs].sort((a, b) => b[1] - a[1])[0]?.[0];
  }
}

/** The picture on the page: drawn blurred and sharp once for each size; a frame moves the window alone. */
class View {
  constructor(stage) {
    this.stage = stage;
    [this.back, this.window, this.front, this.dot] = [".back", ".window", ".front", ".dot"].map((name) => stage.querySelector(name));
    this.width = this.height = this.radius = 0;
  }

  /** Draws an image to fit into so many CSS pixels; `blur` 0 leaves it plain. */
  draw(image, width, height, blur, radius) {
    const scale = Math.min(width / image.naturalWidth, height / image.naturalHeight);
    [this.width, this.height] = [Math.max(1, Math.round(image.naturalWidth * scale)), Math.max(1, Math.round(image.naturalHeight * scale))];
    this.radius = radius * Math.min(this.width, this.height);
    this.stage.style.width = `${this.width}px`;
    this.stage.style.height = `${this.height}px`;
    const ratio = Math.min(globalThis.devicePixelRatio || 1, 2);
    for (const canvas of [this.back, this.front]) {
      canvas.width = Math.round(this.width * ratio);
      canvas.height = Math.round(this.height * ratio);
    }
    this.front.style.width = `${this.width}px`;
    this.front.style.height = `${this.height}px`;
    this.window.style.width = this.window.style.height = `${2 * this.radius}px`;
    const sharp = this.front.getContext("2d");
    sharp.imageSmoothingQuality = "high";
    sharp.drawImage(image, 0, 0, this.front.width, this.front.height);
    drawBlurred(this.back, this.front, blur * ratio);
  }

  /** Puts the window's centre at fractions of the picture. */
  show(x, y) {
    const [left, top] = [x * this.width, y * this.height];
    this.window.style.transform = `translate(${left - this.radius}px, ${top - this.radius}px)`;
    this.front.style.transform = `translate(${this.radius - left}px, ${this.radius - top}px)`;
    this.dot.style.transform = `translate(${left}px, ${top}px)`;
  }
}

/** Draws one canvas into another of its size, blurred up to the edges. */
function drawBlurred(target, source, blur) {
  const context = target.getContext("2d");
  const { width, height } = target;
  if (blur <= 0) {
    context.drawImage(source, 0, 0);
  } else if ("filter" in context) {
    // A margin that goes on with the picture's edges, which would be half transparent without it.
    const margin = Math.ceil(3 * blur);
    const wide = document.createElement("canvas");
    [wide.width, wide.height] = [width + 2 * margin, height + 2 * margin];
    const around = wide.getContext("2d");
    const bands = (size) => [[0, 1, 0, margin], [0, size, margin, size], [size - 1, 1, margin + size, margin]];
    for (const [x, w, left, across] of bands(width))
      for (const [y, h, top, down] of bands(height)) around.drawImage(source, x, y, w, h, left, top, across, down);
    context.filter = `blur(${blur}px)`;
    context.drawImage(wide, -margin, -margin);
    context.filter = "none";
  } else {
    // Browsers without canvas filters: down and up again, by which details go.
    const small = document.createElement("canvas");
    [small.width, small.height] = [Math.max(1, Math.round(width / (2 * blur))), Math.max(1, Math.round(height / (2 * blur)))];
    small.getContext("2d").drawImage(source, 0, 0, small.width, small.height);
    context.imageSmoothingQuality = "high";
    context.drawImage(small, 0, 0, width, height);
  }
}

/** Arrow keys: a press is a step, a key that is held moves on. */
class Keys {
  constructor() {
    this.held = new Map();
  }

  /** A key goes down; returns the step that it asks for, in shorter sides of the picture, or null. */
  press(event, step) {
    if (!(event.key in ARROWS)) return null;
    const [dx, dy] = ARROWS[event.key];
    if (event.repeat) return [0, 0];
    this.held.set(event.key, performance.now());
    const size = event.shiftKey ? 3 * step : step;
    return [dx * size, dy * size];
  }

  release(event) {
    this.held.delete(event.key);
  }

  /** How far the keys that are held for long enough move in so many seconds. */
  movement(seconds) {
    const now = performance.now();
    const keys = [...this.held].filter(([, since]) => now - since > 1000 * HOLD).map(([key]) => ARROWS[key]);
    return [0, 1].map((axis) => keys.reduce((sum, key) => sum + key[axis], 0) * KEY_SPEED * Math.min(seconds, 0.1));
  }
}

/** Speech into text, where the browser offers it. */
class Dictation {
  static get Recognition() {
    return globalThis.SpeechRecognition ?? globalThis.webkitSpeechRecognition;
  }

  constructor({ said, ended, failed }) {
    Object.assign(this, { said, ended, failed, recognition: null });
  }

  start(lang) {
    const recognition = new Dictation.Recognition();
    Object.assign(recognition, { lang, continuous: true, interimResults: false });
    recognition.onresult = (event) => {
      for (const result of Array.from(event.results).slice(event.resultIndex)) if (result.isFinal) this.said(result[0].transcript.trim());
    };
    recognition.onerror = (event) => this.failed(event.error);
    recognition.onend = () => {
      this.recognition = null;
      this.ended();
    };
    this.recognition = recognition;
    recognition.start();
  }

  stop() {
    this.recognition?.stop();
  }
}

/** The circles and the path of a trajectory, over a picture of so many CSS pixels. */
function drawReplay(points, fixations, width, height) {
  const make = (name, attributes, parent) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    parent?.append(node);
    return node;
  };
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, "aria-hidden": "true" });
  let pen = "M";
  const path = points
    .map(([x, y]) => {
      if (x === null) {
        pen = "M";
        return "";
      }
      const step = `${pen}${round(x * width, 1)} ${round(y * height, 1)}`;
      pen = "L";
      return step;
    })
    .join("");
  if (path) for (let i = 0; i < 2; i += 1) make("path", { d: path }, svg);
  const groups = fixations.map(({ box: [x1, y1, x2, y2], duration }, i) => {
    const group = make("g", {}, svg);
    const [x, y] = [((x1 + x2) / 2) * width, ((y1 + y2) / 2) * height];
    const r = clamp(0.045 * Math.min(width, height) * Math.sqrt(duration / 0.5), 10, 0.2 * Math.min(width, height));
    make("circle", { cx: x, cy: y, r: round(r, 1) }, group);
    make("text", { x, y }, group).textContent = String(i + 1);
    return group;
  });
  return { svg, groups };
}

const sheet = new CSSStyleSheet();
sheet.replaceSync(STYLE);

export class PydeperCapture extends HTMLElement {
  static observedAttributes = ["src", "alt", "mode", "blur", "radius", "time-limit", "dictation", "lang"];
  static defaultTexts = defaultTexts;

  #texts = defaultTexts;
  #recorder = new Recorder();
  #keys = new Keys();
  #image = null;
  #position = [0.5, 0.5];
  #lastInput = 0;
  #lastDraft = 0;
  #lastFrame = null;
  #inputKind = "mouse";
  #announcement = 0;
  #elapsedBefore = 0;
  #drawnWidth = 0;
  #attempt = randomName();
  #startedAt = "";
  #frame = 0;
  #replay = null;
  #over = false;
  #parts = {};
  #view;
  #dictation;
  #sizes;

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [sheet];
    root.innerHTML = MARKUP;
    for (const name of ["stage", "message", "place", "stops", "below", "error", "done", "dictate", "note", "countdown"]) this.#parts[name] = root.querySelector(`.${name}`);
    this.#parts.text = root.querySelector("textarea");
    this.#parts.label = root.querySelector("label");
    this.#parts.help = root.querySelector("#help");
    this.#view = new View(this.#parts.stage);
    this.#dictation = new Dictation({
      said: (text) => this.#say(text),
      ended: () => this.#write(),
      failed: (reason) => this.#showError(filled(this.#texts.dictationFailed, { reason })),
    });
    this.#sizes = new ResizeObserver(() => {
      if (this.clientWidth !== this.#drawnWidth) requestAnimationFrame(() => this.#draw());
    });
    this.#listen();
  }

  connectedCallback() {
    this.#write();
    this.#sizes.observe(this);
    document.addEventListener("visibilitychange", this.#onHidden);
    this.#load();
    this.#frame = requestAnimationFrame(this.#onFrame);
  }

  disconnectedCallback() {
    this.stop();
    this.#sizes.disconnect();
    document.removeEventListener("visibilitychange", this.#onHidden);
    cancelAnimationFrame(this.#frame);
  }

  attributeChangedCallback(name, before, after) {
    if (!this.isConnected || before === after) return;
    if (name === "src") this.#load();
    else if (["blur", "radius", "mode"].includes(name)) this.#draw();
    this.#write();
  }

  // --- attributes and properties

  get src() { return this.getAttribute("src") ?? ""; }
  set src(value) { this.setAttribute("src", value); }
  get alt() { return this.getAttribute("alt") ?? this.#texts.picture; }
  set alt(value) { this.setAttribute("alt", value); }
  get mode() { return this.getAttribute("mode") === "trace" ? "trace" : "viewport"; }
  set mode(value) { this.setAttribute("mode", value); }
  get blurRadius() { return this.#number("blur", 14); }
  set blurRadius(value) { this.setAttribute("blur", value); }
  get radius() { return this.#number("radius", 0.12); }
  set radius(value) { this.setAttribute("radius", value); }
  get timeLimit() { return this.#number("time-limit", null); }
  set timeLimit(value) { this.#set("time-limit", value); }
  get dictation() { return this.hasAttribute("dictation"); }
  set dictation(value) { this.toggleAttribute("dictation", Boolean(value)); }

  /** The description so far. */
  get value() { return this.#parts.text.value; }
  set value(text) { this.#parts.text.value = text; }

  get texts() { return this.#texts; }
  set texts(texts) {
    this.#texts = { ...defaultTexts, ...texts };
    this.#write();
  }

  /** What was recorded so far, as JSON; setting it goes on from there. */
  get draft() {
    const { points, elapsed, inputs } = this.#recorder;
    return { description: this.value, points: [...points], elapsed: round(elapsed, 3), inputs: Object.fromEntries(inputs), attempt: this.#attempt, started: this.#startedAt };
  }
  set draft(draft) {
    this.reset();
    const points = [...(draft.points ?? [])];
    const last = points.at(-1);
    if (last && last[0] !== null) points.push([null, null, last[2]]);
    this.#elapsedBefore = Math.max(draft.elapsed ?? 0, last?.[2] ?? 0);
    this.#recorder = new Recorder(points, this.#elapsedBefore);
    this.#recorder.inputs = new Map(Object.entries(draft.inputs ?? {}));
    this.#attempt = draft.attempt ?? this.#attempt;
    this.#startedAt = draft.started ?? this.#startedAt;
    this.value = draft.description ?? "";
  }

  #number(name, otherwise) {
    const text = this.getAttribute(name);
    const value = text === null || text.trim() === "" ? NaN : Number(text);
    return Number.isFinite(value) ? value : otherwise;
  }

  #set(name, value) {
    if (value === null || value === undefined) this.removeAttribute(name);
    else this.setAttribute(name, value);
  }

  // --- methods

  /** Begins anew with the same picture: time, points and text. */
  reset() {
    this.#dictation.stop();
    this.#endReplay();
    this.#over = false;
    this.#elapsedBefore = 0;
    this.#recorder = new Recorder();
    this.#attempt = randomName();
    this.#startedAt = new Date().toISOString();
    this.#position = [0.5, 0.5];
    this.value = "";
    this.#showError("");
    this.#write();
  }

  /** Stops recording and dictation; the next movement goes on. */
  stop() {
    this.#recorder.interrupt();
    this.#dictation.stop();
  }

  /** Ends the picture as the button does; returns the recording, or null where there is no picture or no description. */
  finish() {
    if (!this.#image) return null;
    if (!this.value.trim()) {
      this.#showError(this.#texts.empty);
      this.#parts.text.focus();
      return null;
    }
    this.stop();
    const recording = this.#recording();
    this.#emit("pydeper-done", recording);
    return recording;
  }

  /** Shows where somebody looked; resolves when all of it is shown. */
  async replay(points, fixations) {
    this.stop();
    this.#endReplay();
    const replay = { points, fixations, groups: [], shown: 0 };
    this.#replay = replay;
    this.#over = false;
    this.#draw();
    this.#writeStops();
    this.#write();
    const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const pause = still ? 0 : Math.min(400, 4000 / Math.max(1, fixations.length));
    while (replay.shown < fixations.length && this.#replay === replay) {
      if (pause) await new Promise((resolve) => setTimeout(resolve, pause));
      replay.shown += 1;
      replay.groups[replay.shown - 1]?.classList.remove("later");
    }
  }

  // --- the picture

  async #load() {
    const source = this.src;
    this.#image = null;
    this.#parts.stage.dataset.state = "loading";
    this.#parts.message.textContent = source ? this.#texts.loading : "";
    if (!source) return;
    const image = new Image();
    image.src = source;
    try {
      await image.decode();
    } catch {
      if (source !== this.src) return;
      this.#parts.message.textContent = this.#texts.loadFailed;
      this.#emit("pydeper-error", { code: "load-failed", src: source });
      return;
    }
    if (source !== this.src || !this.isConnected) return;
    this.#image = image;
    this.#parts.message.textContent = "";
    this.#parts.stage.dataset.state = "shown";
    this.#draw();
    this.#begin();
  }

  #begin() {
    this.#startedAt ||= new Date().toISOString();
    this.#recorder.begin(this.#elapsedBefore);
    this.#emit("pydeper-start", { src: this.src, width: this.#image.naturalWidth, height: this.#image.naturalHeight });
  }

  #draw() {
    if (!this.#image || !this.clientWidth) return;
    this.#drawnWidth = this.clientWidth;
    const blur = this.mode === "trace" || this.#replay ? 0 : this.blurRadius;
    const height = Math.max(220, 0.62 * innerHeight);
    this.#view.draw(this.#image, this.clientWidth, height, blur, this.radius);
    this.#view.show(...this.#position);
    if (this.#replay) this.#drawReplay();
  }

  #drawReplay() {
    const { points, fixations, shown } = this.#replay;
    this.#parts.stage.querySelector("svg")?.remove();
    const { svg, groups } = drawReplay(points, fixations, this.#view.width, this.#view.height);
    groups.forEach((group, i) => group.classList.toggle("later", i >= shown));
    this.#replay.groups = groups;
    this.#parts.stage.append(svg);
  }

  #endReplay() {
    if (!this.#replay) return;
    this.#replay = null;
    this.#parts.stage.querySelector("svg")?.remove();
    this.#draw();
    this.#write();
  }

  // --- looking

  #listen() {
    const { stage, text, done, dictate } = this.#parts;
    for (const name of ["pointerdown", "pointermove"]) stage.addEventListener(name, (event) => this.#onPointer(event));
    for (const name of ["pointerup", "pointercancel", "pointerleave"]) stage.addEventListener(name, (event) => this.#onAway(event));
    stage.addEventListener("keydown", (event) => this.#onKey(event));
    stage.addEventListener("keyup", (event) => this.#onKeyUp(event));
    stage.addEventListener("focus", () => stage.matches(":focus-visible") && this.#look(...this.#position, "keyboard"));
    stage.addEventListener("blur", () => this.#onBlur());
    text.addEventListener("input", () => this.#onTyping());
    done.addEventListener("click", () => this.finish());
    dictate.addEventListener("click", () => this.#onDictate());
  }

  get #active() {
    return this.#image !== null && this.#replay === null && !this.#over;
  }

  #look(x, y, input) {
    if (!this.#active) return;
    this.#position = [clamp(x, 0, 1), clamp(y, 0, 1)];
    this.#lastInput = performance.now();
    this.#recorder.looking = true;
    this.#inputKind = input;
  }

  #onPointer(event) {
    if (!event.isPrimary) return;
    if (event.type === "pointerdown" && event.pointerType !== "mouse") this.#parts.stage.setPointerCapture(event.pointerId);
    const box = this.#parts.stage.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    if (x < 0 || x > 1 || y < 0 || y > 1) this.#recorder.interrupt();
    else this.#look(x, y, event.pointerType || "mouse");
  }

  #onAway(event) {
    if (!event.isPrimary) return;
    const lifted = event.type === "pointerup" && event.pointerType === "mouse";
    const staysVisible = event.pointerType !== "mouse" && this.mode === "viewport" && event.type !== "pointercancel";
    if (!lifted && !staysVisible) this.#recorder.interrupt();
  }

  #onKey(event) {
    if (event.altKey || event.ctrlKey || event.metaKey) return; // the browser's own
    if (event.key === "Enter") {
      event.preventDefault();
      this.#parts.text.focus();
      return;
    }
    const step = this.#keys.press(event, this.radius / 2);
    if (!step) return;
    event.preventDefault();
    this.#move(...step);
  }

  #onKeyUp(event) {
    if (!(event.key in ARROWS)) return;
    this.#keys.release(event);
    clearTimeout(this.#announcement);
    this.#announcement = setTimeout(() => {
      const [x, y] = this.#position.map(percent);
      this.#parts.place.textContent = filled(this.#texts.place, { x, y });
    }, ANNOUNCE_AFTER);
  }

  /** Moves the viewport by so many shorter sides of the picture. */
  #move(dx, dy) {
    const side = Math.min(this.#view.width, this.#view.height);
    const [x, y] = this.#position;
    this.#look(x + (dx * side) / this.#view.width, y + (dy * side) / this.#view.height, "keyboard");
  }

  #onBlur() {
    this.#keys.held.clear();
    if (this.#inputKind === "keyboard") this.#recorder.interrupt();
  }

  #onTyping() {
    this.#recorder.interrupt();
    this.#showError("");
    this.#saveDraft();
  }

  #onHidden = () => {
    if (!document.hidden) return;
    this.#recorder.interrupt();
    this.#saveDraft();
  };

  #onFrame = (now) => {
    this.#frame = requestAnimationFrame(this.#onFrame);
    const seconds = (now - (this.#lastFrame ?? now)) / 1000;
    this.#lastFrame = now;
    if (!this.#active) {
      this.#parts.stage.classList.remove("looking");
      return;
    }
    const [dx, dy] = this.#keys.movement(seconds);
    if (dx || dy) this.#move(dx, dy);
    if (performance.now() - this.#lastInput > 1000 * IDLE) this.#recorder.interrupt();
    const { looking } = this.#recorder;
    if (looking) {
      this.#view.show(...this.#position);
      this.#recorder.see(...this.#position, this.#inputKind);
    }
    this.#parts.stage.classList.toggle("looking", looking);
    this.#countDown();
    if (this.#recorder.elapsed - this.#lastDraft > DRAFT_EVERY || this.#recorder.elapsed < this.#lastDraft) this.#saveDraft();
  };

  #countDown() {
    if (this.timeLimit === null) return;
    const seconds = Math.max(0, Math.ceil(this.timeLimit - this.#recorder.elapsed));
    const text = filled(this.#texts.timeLeft, { seconds });
    if (this.#parts.countdown.textContent !== text) {
      this.#parts.countdown.textContent = text;
      if (seconds === 10) this.#parts.place.textContent = text;
    }
    if (seconds > 0) return;
    this.#recorder.interrupt();
    this.#over = true;
    this.#write();
  }

  #saveDraft() {
    this.#lastDraft = this.#recorder.elapsed;
    this.#emit("pydeper-draft", this.draft);
  }

  // --- words

  #onDictate() {
    if (this.#dictation.recognition) this.#dictation.stop();
    else this.#dictation.start(this.lang || document.documentElement.lang);
    this.#write();
  }

  #say(text) {
    this.value = [this.value.trim(), text].filter(Boolean).join(" ");
    this.#showError("");
    this.#saveDraft();
  }

  #showError(text) {
    this.#parts.error.textContent = text;
    this.#parts.text.setAttribute("aria-invalid", String(Boolean(text)));
  }

  /** Brings what is written on the page up to date with the state. */
  #write() {
    const { stage, text, label, help, below, done, dictate, note, countdown, stops, message } = this.#parts;
    const replaying = this.#replay !== null;
    stage.setAttribute("aria-label", this.alt);
    stage.classList.toggle("trace", this.mode === "trace");
    stage.classList.toggle("replay", replaying);
    stage.classList.toggle("over", this.#over);
    if (this.#over) message.textContent = this.#texts.timeOver;
    else if (this.#image) message.textContent = "";
    stage.tabIndex = replaying ? -1 : 0;
    stage.setAttribute("role", replaying ? "img" : "application");
    help.textContent = replaying ? "" : this.#texts.pictureHelp;
    label.textContent = this.#texts.description;
    if (this.lang) text.lang = this.lang;
    done.textContent = this.#texts.done;
    const dictates = this.dictation && Dictation.Recognition !== undefined;
    dictate.hidden = !dictates;
    dictate.textContent = this.#dictation.recognition ? this.#texts.stopDictating : this.#texts.dictate;
    note.textContent = dictates ? this.#texts.dictationNote : "";
    countdown.hidden = this.timeLimit === null || replaying || this.#over;
    below.hidden = replaying;
    stops.hidden = !replaying;
  }

  #writeStops() {
    const { stops } = this.#parts;
    const { fixations } = this.#replay;
    const texts = this.#texts;
    stops.setAttribute("aria-label", filled(texts.stops, { count: fixations.length }));
    const lines = fixations.map(({ box: [x1, y1, x2, y2], duration }) =>
      filled(texts.stop, { x: percent((x1 + x2) / 2), y: percent((y1 + y2) / 2), seconds: duration.toFixed(1) }),
    );
    stops.replaceChildren(
      ...(lines.length ? lines : [texts.noStops]).map((line) => {
        const item = document.createElement("li");
        item.textContent = line;
        return item;
      }),
    );
  }

  // --- what comes of it

  #recording() {
    const { points, elapsed, input } = this.#recorder;
    return {
      description: this.value.trim(),
      points: [...points],
      mode: this.mode,
      input: input ?? null,
      image_size: [this.#image.naturalWidth, this.#image.naturalHeight],
      shown_size: [this.#view.width, this.#view.height],
      screen: [screen.width, screen.height],
      device_pixel_ratio: devicePixelRatio,
      started: this.#startedAt,
      duration: round(elapsed, 3),
      blur: this.mode === "trace" ? null : this.blurRadius,
      radius: this.mode === "trace" ? null : this.radius,
      attempt: this.#attempt,
    };
  }

  #emit(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail, bubbles: true, composed: true }));
  }
}

customElements.get("pydeper-capture") ?? customElements.define("pydeper-capture", PydeperCapture);
