// The answer, its ten bars and the line of numbers.

import type { Prediction } from "selkie";

import { element } from "./skins.js";

export class Answer {
  readonly #digit = element("digit");
  readonly #status = element("status");
  readonly #retry = element("retry");
  readonly #bars = element("bars");
  readonly #figures = element("figures");
  readonly #section = this.#digit.closest("section") as HTMLElement;

  constructor(retry: () => void) {
    this.#retry.addEventListener("click", retry);
    for (let digit = 0; digit < 10; digit++) {
      const bar = document.createElement("li");
      bar.append(document.createElement("i"), String(digit));
      this.#bars.append(bar);
    }
    this.none("");
  }

  /** No answer, and why. */
  none(why: string): void {
    this.#section.dataset["state"] = "none";
    this.#say(why, false);
    this.#digit.textContent = "";
    this.#show(new Float32Array(10), undefined);
    this.#figures.textContent = "The drawing leaves this tab only as noise.";
  }

  /** The drawing has changed: what stands here belongs to the one before. */
  stale(): void {
    if (this.#section.dataset["state"] === "wrong") {
      this.none("");
    }
    this.#section.dataset["state"] = "stale";
  }

  asking(): void {
    this.#section.dataset["state"] = "asking";
    this.#say("The servers are calculating on noise…", false);
  }

  wrong(error: unknown): void {
    this.none("");
    this.#section.dataset["state"] = "wrong";
    this.#say(error instanceof Error ? error.message : String(error), true);
  }

  /** The servers' answer, and what the tab calculated by itself, if it could. */
  said(prediction: Prediction, clear: Float32Array | undefined): void {
    this.#section.dataset["state"] = "said";
    const digit = largest(prediction.values);
    const shares = softmax(prediction.values);
    const sure = shares[digit] ?? 0;
    this.#digit.textContent = String(digit);
    this.#say(sure > 0.9 ? "That is what they read." : "Their best guess; they are not sure.", false);
    this.#show(shares, digit);
    const number = (value: number): string => value.toLocaleString("en", { maximumFractionDigits: 0 });
    this.#figures.replaceChildren(
      ...figure(number(prediction.ms), "ms"),
      ...figure(number(prediction.onlineBytes / 1000), "kB among the parties"),
      ...figure(number(prediction.clientBytes / 1000), "kB with this tab"),
      ...figure(number(prediction.rounds), "rounds"),
      ...(clear ? agreement(prediction.values, clear) : []),
    );
  }

  #say(text: string, wrong: boolean): void {
    this.#status.textContent = text;
    this.#retry.hidden = !wrong;
  }

  #show(shares: Float32Array, first: number | undefined): void {
    for (const [digit, bar] of [...this.#bars.children].entries()) {
      (bar as HTMLElement).style.setProperty("--share", String(shares[digit] ?? 0));
      bar.classList.toggle("first", digit === first);
    }
    const percent = (share: number): string => `${Math.round(share * 100)} %`;
    const order = [...shares.keys()].sort((a, b) => (shares[b] ?? 0) - (shares[a] ?? 0)).slice(0, 3);
    this.#bars.ariaLabel =
      first === undefined
        ? "No answer yet"
        : `How sure: ${order.map((digit) => `${digit}, ${percent(shares[digit] ?? 0)}`).join("; ")}`;
  }
}

function figure(value: string, unit: string): Node[] {
  const span = document.createElement("span");
  const bold = document.createElement("b");
  bold.textContent = value;
  span.append(bold, ` ${unit}`);
  return [span];
}

function agreement(values: Float32Array, clear: Float32Array): Node[] {
  const off = values.reduce((most, value, i) => Math.max(most, Math.abs(value - (clear[i] ?? Number.NaN))), 0);
  const same = largest(values) === largest(clear);
  return figure(same ? "same" : "not the same", `as in clear, to ${off.toPrecision(1)}`);
}

/** The place of the largest; the first of equals. */
function largest(values: Float32Array): number {
  return values.reduce((best, value, i) => (value > (values[best] ?? 0) ? i : best), 0);
}

function softmax(values: Float32Array): Float32Array {
  const top = values[largest(values)] ?? 0;
  const powers = values.map((value) => Math.exp(value - top));
  const sum = powers.reduce((a, b) => a + b, 0);
  return powers.map((power) => power / sum);
}
