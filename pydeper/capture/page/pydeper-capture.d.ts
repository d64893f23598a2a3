/** Types of `pydeper-capture.js`. */

/** x and y as fractions of the picture from its top left, null where looking stopped; seconds since it was shown. */
export type CapturePoint = [x: number | null, y: number | null, seconds: number];

export type CaptureMode = "viewport" | "trace";
export type CaptureInput = "mouse" | "pen" | "touch" | "keyboard";

/** A stop, as `pydeper.gaze` finds it: left, top, right and bottom as fractions of the picture, and seconds. */
export interface CaptureFixation {
  box: [number, number, number, number];
  duration: number;
}

/** The detail of `pydeper-done`; `pydeper.readers.sample_from_recording` takes it. */
export interface CaptureRecording {
  description: string;
  points: CapturePoint[];
  mode: CaptureMode;
  input: CaptureInput | null;
  image_size: [number, number];
  shown_size: [number, number];
  screen: [number, number];
  device_pixel_ratio: number;
  started: string;
  duration: number;
  blur: number | null;
  radius: number | null;
  attempt: string;
}

/** The detail of `pydeper-draft`, and what the property `draft` takes. */
export interface CaptureDraft {
  description: string;
  points: CapturePoint[];
  elapsed: number;
  inputs: Partial<Record<CaptureInput, number>>;
  attempt: string;
  started: string;
}

export type CaptureTexts = Record<
  | "picture" | "pictureHelp" | "description" | "done" | "empty" | "dictate" | "stopDictating" | "dictationNote"
  | "dictationFailed" | "place" | "timeLeft" | "timeOver" | "loading" | "loadFailed" | "stops" | "stop" | "noStops",
  string
>;

export declare const defaultTexts: CaptureTexts;

export declare class PydeperCapture extends HTMLElement {
  static readonly defaultTexts: CaptureTexts;
  src: string;
  alt: string;
  mode: CaptureMode;
  blurRadius: number;
  radius: number;
  timeLimit: number | null;
  dictation: boolean;
  value: string;
  get texts(): CaptureTexts;
  set texts(texts: Partial<CaptureTexts>);
  get draft(): CaptureDraft;
  set draft(draft: Partial<CaptureDraft>);
  reset(): void;
  stop(): void;
  finish(): CaptureRecording | null;
  replay(points: CapturePoint[], fixations: CaptureFixation[]): Promise<void>;
}

export interface CaptureEventMap {
  "pydeper-start": CustomEvent<{ src: string; width: number; height: number }>;
  "pydeper-draft": CustomEvent<CaptureDraft>;
  "pydeper-done": CustomEvent<CaptureRecording>;
  "pydeper-error": CustomEvent<{ code: "load-failed"; src: string }>;
}

declare global {
  interface HTMLElementTagNameMap {
    "pydeper-capture": PydeperCapture;
  }
  interface HTMLElementEventMap extends CaptureEventMap {}
}
