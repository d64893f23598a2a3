/** What the page asks of the server. Problems become `ApiError`s; a lost connection is one without a status. */

export class ApiError extends Error {
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
  }

  /** Whether the same request may succeed later. */
  get isPassing() {
    return this.status === 0 || this.status === 507 || this.status === 503;
  }
}

export class Api {
  /** @param {string} tab Names this tab; the server lets one tab write. */
  constructor(tab) {
    this.tab = tab;
    /** The session that the page shows; the server refuses what is meant for another. */
    this.sessionName = "";
  }

  session() { return this.#send("GET", "/api/session"); }
  claim() { return this.#send("POST", "/api/claim"); }
  consent(body) { return this.#send("POST", "/api/consent", body); }
  recorded(index) { return this.#send("GET", `/api/pictures/${index}`); }
  record(index, recording) { return this.#send("PUT", `/api/pictures/${index}`, recording); }
  skip(index) { return this.#send("POST", `/api/pictures/${index}/skip`); }
  makePersona() { return this.#send("POST", "/api/persona"); }
  delete() { return this.#send("DELETE", "/api/session"); }
  texts() { return this.#send("GET", "/static/texts.json"); }
  image(index) { return `/api/pictures/${index}/image`; }

  async #send(method, path, body) {
    let answer;
    try {
      answer = await fetch(path, { method, headers: { "X-Tab": this.tab, "X-Session": this.sessionName }, body: body === undefined ? undefined : JSON.stringify(body) });
    } catch {
      throw new ApiError(0, "offline", "the server cannot be reached");
    }
    if (answer.status === 204) return null;
    const value = await answer.json().catch(() => null);
    if (answer.ok && value !== null) return value;
    throw new ApiError(answer.status, value?.code ?? "http", value?.detail ?? answer.statusText);
  }
}

/** Does something until it works: what passes by (a lost connection, a full disk) is waited out and told. */
export async function persistently(action, { onTrouble }) {
  for (let wait = 500; ; wait = Math.min(2 * wait, 8000)) {
    try {
      return await action();
    } catch (error) {
      if (!(error instanceof ApiError) || !error.isPassing) throw error;
      onTrouble(error);
      await pause(wait);
    }
  }
}

/** Waits, but no longer than until the connection is back. */
function pause(milliseconds) {
  return new Promise((resolve) => {
    const timer = setTimeout(done, milliseconds);
    function done() {
      clearTimeout(timer);
      removeEventListener("online", done);
      resolve();
    }
    addEventListener("online", done);
  });
}
