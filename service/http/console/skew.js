// The section of skew: what models are served beside what they were trained on.

import { byId, make, percent, show } from "./api.js";

const SHOWN = 11; // of a feature's bins: what is missing, and the first; the others are added up
const WORDS = { same: ["✓ same", "good"], look: ["! look", "warn"], shifted: ["✗ shifted", "bad"] };

const keyOf = one => `${one.model}@${one.version}`;
const count = value => value.toLocaleString("en-GB");
const figure = value => (Math.abs(value) >= 1e6 ? value.toExponential(2) : String(+value.toPrecision(4)));
const short = feature => feature.slice(feature.indexOf(":") + 1);

export class Skew {
  constructor() {
    this.rows = new Map();
    this.buttons = new Map();
    this.bars = [];
    this.key = this.feature = null;
    this.table = byId("skew").tBodies[0];
    this.bins = byId("skew-bins").tBodies[0];
  }

  set({ versions }) {
    this.versions = new Map(versions.map(one => [keyOf(one), one]));
    if (!this.versions.has(this.key)) {
      this.key = keyOf(versions.reduce((a, b) => (b.answers >= a.answers ? b : a)));
    }
    const keys = versions.length > 1 ? [...this.versions.keys()] : [];
    if (keys.join() !== [...this.buttons.keys()].join()) {
      this.buttons = new Map(keys.map(key => [key, make("button", { type: "button", textContent: key })]));
      for (const [key, button] of this.buttons) button.onclick = () => { this.key = key; this.draw(); };
      byId("skew-versions").replaceChildren(...this.buttons.values());
    }
    this.draw();
  }

  draw() {
    const version = this.versions.get(this.key);
    for (const [key, button] of this.buttons) button.ariaPressed = key === this.key;
    show(byId("skew-note"), sentence(version));
    const { features } = version;
    if (features.map(one => one.feature).join() !== [...this.rows.keys()].join()) {
      this.table.replaceChildren();
      this.rows = new Map(features.map(one => [one.feature, this.row(one.feature)]));
    }
    for (const one of features) this.fill(this.rows.get(one.feature), one);
    const chosen = features.find(one => one.feature === this.feature) ?? worst(features);
    for (const [name, { button }] of this.rows) button.ariaPressed = name === chosen?.feature;
    if (chosen?.verdict) this.feature ??= chosen.feature; // another that becomes the worst must not push it aside
    if (chosen) this.shares(chosen);
  }

  row(feature) {
    const button = make("button", { type: "button", className: "choose", textContent: short(feature) });
    button.onclick = () => { this.feature = feature; this.draw(); };
    const view = make("small", { textContent: feature.split(":")[0] });
    const cells = [0, 1, 2].map(() => make("td", { className: "num" }, make("span"), make("small")));
    this.table.append(make("tr", {}, make("th", { scope: "row" }, button, view), ...cells));
    return { button, cells };
  }

  fill({ cells }, { psi, verdict, needed, missing }) {
    const [words, kind] = WORDS[verdict] ?? [needed ? `needs ${count(needed)}` : "not known", ""];
    show(cells[0].firstChild, psi === null ? "–" : psi.toFixed(3));
    show(cells[0].lastChild, words);
    cells[0].dataset.kind = kind;
    show(cells[1].firstChild, percent(missing.live));
    show(cells[2].firstChild, percent(missing.trained));
  }

  shares({ feature, bins, extent }) {
    show(byId("skew-of"), feature);
    const first = bins.slice(0, SHOWN), rest = bins.slice(SHOWN);
    const sum = side => rest.reduce((total, one) => total + (one[side] ?? 0), 0);
    if (rest.length) first.push({ bin: "(others)", live: first[0].live === null ? null : sum("live"), trained: sum("trained") });
    while (this.bars.length < first.length) this.bars.push(bar());
    const most = Math.max(...first.map(one => Math.max(one.live ?? 0, one.trained)), 0.01);
    first.forEach((one, i) => this.bars[i].fill(one, most));
    const drawn = this.bars.slice(0, first.length).map(one => one.line);
    if (drawn.length !== this.bins.rows.length) this.bins.replaceChildren(...drawn);
    show(byId("skew-extent"), bins.length ? range(extent) : "What training saw of it is not known.");
  }
}

function bar() {
  const name = make("th", { scope: "row" }), live = make("i", { className: "live" }), trained = make("i", { className: "trained" });
  const figures = [make("span"), make("span")];
  const line = make("tr", {}, name, make("td", { className: "bars", ariaHidden: "true" }, live, trained),
    make("td", { className: "num" }, figures[0]), make("td", { className: "num" }, figures[1]));
  const fill = (one, most) => {
    show(name, one.bin);
    show(figures[0], percent(one.live));
    show(figures[1], percent(one.trained));
    live.style.width = `${(100 * (one.live ?? 0)) / most}%`;
    trained.style.width = `${(100 * one.trained) / most}%`;
  };
  return { line, fill };
}

const worst = features => features.reduce((a, b) => ((b.psi ?? -1) > (a?.psi ?? -1) ? b : a), features[0]);

function sentence({ note, answers, anonymous, examples, defaulted, features }) {
  const nobody = anonymous ? ` (${count(anonymous)} more were anonymous)` : "";
  const looked = `${count(answers)} answers of the last hour${nobody}`;
  const missing = defaulted.live === null ? "" : ` Defaults stood in for ${percent(defaulted.live)} of the features`;
  if (note) return `${looked}.${missing && `${missing}.`} Nothing to compare with: ${note}.`;
  const before = missing && `${missing}, in training for ${percent(defaulted.trained)}.`;
  const told = features.filter(one => one.verdict), off = told.filter(one => one.verdict === "shifted").map(one => short(one.feature));
  const found = !told.length ? " Too few to compare." : off.length ? ` Shifted: ${off.join(", ")}.` : " None is shifted.";
  return `${looked}, beside ${count(examples)} examples.${before}${found}`;
}

function range(extent) {
  if (!extent) return "\u00a0";
  const { live_least, live_most, trained_least, trained_p1, trained_p99, trained_most, below_p1, above_p99 } = extent;
  const trained = `trained on ${figure(trained_least)} to ${figure(trained_most)} (p1 ${figure(trained_p1)}, p99 ${figure(trained_p99)})`;
  if (live_least === null) return `None was served; ${trained}.`;
  const beyond = `${percent(below_p1)} below p1, ${percent(above_p99)} above p99`;
  return `Served ${figure(live_least)} to ${figure(live_most)}, ${trained}; ${beyond}.`;
}
