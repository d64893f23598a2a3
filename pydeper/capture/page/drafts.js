/** What somebody has begun, kept in this browser until the server has it: {index, stage, draft, recording}. */
export class Drafts {
  /** @param {string} session Names the session, so that drafts of others are left alone. */
  constructor(session) {
    this.key = `pydeper-capture:${session}`;
  }

  /** Returns what was kept, or null. */
  read() {
    try {
      const value = JSON.parse(localStorage.getItem(this.key));
      return value !== null && Number.isInteger(value.index) ? value : null;
    } catch {
      return null;
    }
  }

  /** Keeps it; false where the browser stores nothing. */
  keep(value) {
    try {
      localStorage.setItem(this.key, JSON.stringify(value));
      return true;
    } catch {
      return false;
    }
  }

  forget() {
    try {
      localStorage.removeItem(this.key);
    } catch {
      // There was nothing to remove.
    }
  }
}
