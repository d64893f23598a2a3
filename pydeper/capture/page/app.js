/** The flow of the capture page: consent, one picture after the other, and what comes of it. */

import "./pydeper-capture.js";
import { Api, ApiError, persistently } from "./api.js";
import { Drafts } from "./drafts.js";

/** Refusals of the server that the page says in its own language; others keep the server's words. */
const REFUSALS = { "too-large": "tooLarge", persona: "noPersona", "not-written": "notWritten", "not-deleted": "notDeleted", failed: "serverFailed" };
const RELOAD_AFTER = 2000;

const element = (id) => document.getElementById(id);
const randomName = () => Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");

class App {
  constructor() {
    this.tab = randomName();
    this.api = new Api(this.tab);
    this.tabs = new BroadcastChannel("pydeper-capture");
    this.capture = element("capture");
    this.state = null;
    this.drafts = null;
    this.texts = {};
    this.index = null;
    this.stage = "look";
    this.unsent = null;
    this.listens = false;
  }

  async begin() {
    const texts = await this.api.texts();
    this.state = await this.api.session();
    this.texts = (texts[this.state.language] ?? texts.en).page;
    this.capture.texts = (texts[this.state.language] ?? texts.en).widget;
    this.drafts = new Drafts(this.state.session);
    this.api.sessionName = this.state.session;
    document.documentElement.lang = this.state.language;
    document.title = this.texts.title;
    for (const node of document.querySelectorAll("[data-text]")) node.textContent = this.texts[node.dataset.text];
    this.listen();
    await this.api.claim();
    this.tabs.postMessage({ session: this.state.session, claimed: this.tab });
    if (this.state.consent) await this.goOn();
    else this.welcome();
  }

  listen() {
    if (this.listens) return;
    this.listens = true;
    const on = (id, handle) => element(id).addEventListener("click", () => this.guarded(handle));
    on("agree", () => this.agree());
    on("skip", () => this.skip());
    on("enough", () => this.result());
    on("keep", () => this.next());
    on("again", () => this.again());
    on("discard", () => this.skip());
    on("more", () => this.goOn());
    on("retry", () => this.result());
    on("delete", () => element("confirm").showModal());
    on("confirm-cancel", () => element("confirm").close());
    on("confirm-delete", () => this.deleteAll());
    on("here", () => location.reload());
    this.capture.addEventListener("pydeper-draft", () => this.keepDraft());
    this.capture.addEventListener("pydeper-done", (event) => this.guarded(() => this.store(event.detail)));
    this.capture.addEventListener("pydeper-error", () => this.loadAgain());
    this.capture.addEventListener("pydeper-start", () => this.isLoaded());
    addEventListener("pagehide", () => this.keepDraft());
    this.tabs.addEventListener("message", ({ data }) => {
      if (data.session === this.state.session && data.claimed !== this.tab) this.giveWay();
    });
  }

  /** Runs what a button asks for; what goes wrong is told where the person is. */
  async guarded(handle) {
    try {
      await handle();
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      if (error.code === "another-tab") this.giveWay();
      else if (error.code === "deleted") this.end();
      else if (error.code === "another-session") location.reload();
      else this.say(REFUSALS[error.code] ?? "failed", { detail: error.message });
    }
  }

  // --- what is on the page

  text(name, values = {}) {
    return this.texts[name].replace(/\{(\w+)\}/g, (_, key) => String(values[key] ?? ""));
  }

  say(name, values) {
    if (this.texts.brand) element("status").textContent = name ? this.text(name, values) : "";
  }

  /** Shows one screen; the focus goes to its heading, which screen readers then read. */
  show(name) {
    for (const section of document.querySelectorAll("main > section")) section.hidden = section.id !== name;
    element("progress").hidden = name !== "work";
    const heading = element(name).querySelector("h1");
    heading.focus({ preventScroll: true });
    scrollTo(0, 0);
  }

  get recorded() {
    return this.state.pictures.filter(({ status }) => status === "recorded").length;
  }

  get shown() {
    return this.state.pictures.filter(({ status }) => status !== "kept back");
  }

  nextOpen() {
    return this.state.pictures.find(({ status }) => status === "open") ?? null;
  }

  // --- consent

  welcome() {
    const { mode, skipped_files: files } = this.state;
    element("step-look").textContent = this.texts[mode === "trace" ? "stepLookTrace" : "stepLookViewport"];
    element("skipped-files").hidden = files.length === 0;
    element("skipped-files").querySelector("ul").replaceChildren(...files.map(({ name, reason }) => item(`${name}: ${reason}`)));
    this.show("welcome");
  }

  async agree() {
    const publish = element("publish").checked;
    const parts = ["consentRecorded", "consentStays", "consentPersona", "consentDelete", ...(publish ? ["consentPublish"] : [])];
    await this.api.consent({ publish, language: this.state.language, text: parts.map((name) => this.texts[name]).join(" ") });
    this.next();
  }

  // --- one picture

  /** After a reload: where the person was, with what they had begun. */
  async goOn() {
    const kept = this.drafts.read();
    const picture = kept && this.state.pictures[kept.index];
    if (!picture) await this.next();
    else if (kept.recording) await this.resend(kept);
    else if (kept.stage === "review" && picture.status === "recorded") await this.reviewAgain(kept.index);
    else if (kept.stage === "look" && picture.status !== "kept back") this.look(picture, kept.draft);
    else await this.next();
  }

  async resend({ index, recording, draft }) {
    this.look(this.state.pictures[index], draft);
    await this.guarded(() => this.store(recording));
  }

  next() {
    this.say("");
    this.drafts.forget();
    const picture = this.nextOpen();
    if (picture) this.look(picture);
    else return this.result();
  }

  look(picture, draft = null) {
    const { settings, mode } = this.state;
    this.index = picture.index;
    this.stage = "look";
    this.capture.mode = mode;
    this.capture.blurRadius = settings.blur;
    this.capture.radius = settings.radius;
    this.capture.timeLimit = settings.time_limit;
    this.capture.dictation = settings.dictation;
    if (draft) this.capture.draft = draft;
    else this.capture.reset();
    this.capture.src = this.api.image(picture.index);
    element("work-title").textContent = this.texts.pictureTitle;
    element("instructions").textContent = settings.instructions ?? this.texts[mode === "trace" ? "instructionsTrace" : "instructionsViewport"];
    this.writeProgress();
    this.showActions();
    this.show("work");
    if (draft) this.say("restored");
    const after = this.state.pictures.find(({ index, status }) => index > picture.index && status === "open");
    if (after) new Image().src = this.api.image(after.index);
  }

  writeProgress() {
    const { recommended } = this.state;
    const name = this.recorded < recommended && this.shown.length > recommended ? "progressMore" : "progress";
    const number = this.shown.findIndex(({ index }) => index === this.index) + 1;
    element("progress").textContent = this.text(name, { number, count: this.shown.length, recommended });
  }

  showActions() {
    const reviews = this.stage === "review";
    element("look-actions").hidden = reviews;
    element("review").hidden = !reviews;
    element("enough").hidden = this.recorded < this.state.minimum;
  }

  keepDraft() {
    if (this.stage === "gone" || this.index === null || this.drafts === null) return;
    const kept = this.drafts.keep({ index: this.index, stage: this.stage, draft: this.stage === "review" ? null : this.capture.draft, recording: this.unsent });
    if (!kept) this.say("noDraft");
  }

  /** The server may be away for a moment, so a picture that did not come is asked for again. */
  loadAgain() {
    const { index } = this;
    this.say("offline");
    setTimeout(() => {
      if (this.index === index && this.stage !== "gone") this.capture.src = `${this.api.image(index)}?again=${Date.now()}`;
    }, RELOAD_AFTER);
  }

  isLoaded() {
    if (element("status").textContent === this.texts.offline && this.stage !== "storing") this.say("");
  }

  /** Sends a recording until the server has it; until then it is kept in this browser. */
  async store(recording) {
    const { index } = this;
    this.unsent = recording;
    this.keepDraft();
    this.say("saving");
    this.stage = "storing";
    element("work").inert = true;
    let look;
    try {
      look = await persistently(() => this.api.record(index, recording), {
        onTrouble: ({ status }) => this.say(status === 507 ? "noSpace" : "offline"),
      });
    } catch (error) {
      this.stage = "look";
      throw error;
    } finally {
      this.unsent = null;
      element("work").inert = false;
    }
    this.state.pictures[index].status = "recorded";
    this.say("saved");
    this.review(look, recording.points);
  }

  async reviewAgain(index) {
    this.index = index;
    this.stage = "review";
    this.capture.mode = this.state.mode;
    this.capture.src = this.api.image(index);
    const look = await persistently(() => this.api.recorded(index), { onTrouble: () => this.say("offline") });
    this.review(look, look.points);
  }

  review({ description, fixations, problem }, points) {
    this.stage = "review";
    this.keepDraft();
    this.writeProgress();
    this.showActions();
    element("work-title").textContent = this.texts.reviewTitle;
    element("instructions").textContent = this.texts.reviewWhat;
    element("said").textContent = description;
    element("problem").textContent = problem ? this.text("textOnly", { problem }) : "";
    this.show("work");
    this.capture.replay(points, fixations);
  }

  again() {
    this.say("");
    this.look(this.state.pictures[this.index]);
    this.keepDraft();
  }

  async skip() {
    const { index } = this;
    await this.api.skip(index);
    this.state.pictures[index].status = "skipped";
    this.next();
  }

  // --- the end

  async result() {
    this.keepDraft(); // what was begun is there when the person goes on
    this.stage = "result";
    this.index = null;
    this.say("");
    this.capture.stop();
    for (const id of ["outcome", "downloads", "retry"]) element(id).hidden = true;
    element("result-wait").hidden = this.recorded === 0;
    element("result-what").textContent = "";
    element("more").hidden = this.nextOpen() === null;
    this.show("result");
    if (this.recorded === 0) {
      element("downloads").hidden = false;
      return;
    }
    try {
      this.writeOutcome(await persistently(() => this.api.makePersona(), { onTrouble: () => this.say("offline") }));
      this.say("");
    } catch (error) {
      element("retry").hidden = false;
      throw error;
    } finally {
      element("result-wait").hidden = true;
    }
  }

  writeOutcome({ persona, picture, described, plain }) {
    const count = persona.num_samples;
    const name = picture === null ? "resultAll" : count === 1 ? "resultWhatOne" : "resultWhat";
    const few = count < this.state.recommended ? ` ${this.text("resultFew", this.state)}` : "";
    element("result-what").textContent = this.text(name, { count }) + few;
    element("downloads").hidden = false;
    element("outcome").hidden = picture === null;
    if (picture === null) return;
    element("outcome-image").src = this.api.image(picture);
    element("outcome-image").alt = this.texts.outcomeImage;
    element("described").textContent = described;
    element("plain").textContent = plain;
    element("demonstration").hidden = !this.state.model.demonstration;
  }

  async deleteAll() {
    element("confirm").close();
    await this.api.delete();
    this.end();
  }

  end() {
    this.stage = "gone";
    this.drafts.forget();
    this.capture.stop();
    this.say("");
    this.show("ended");
  }

  /** Another tab has taken over: this one writes nothing any more. */
  giveWay() {
    if (this.stage === "gone") return;
    this.stage = "gone";
    this.capture.stop();
    this.say("");
    this.show("elsewhere");
  }
}

function item(text) {
  const node = document.createElement("li");
  node.textContent = text;
  return node;
}

const app = new App();
app.guarded(() => persistently(() => app.begin(), { onTrouble: () => {} }));
