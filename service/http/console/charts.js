// Lines over time, drawn by uPlot, and the section of the stages.

import { byId, clock, figures, make, milliseconds, quantile, readMetrics, show } from "./api.js";

const DASHES = { p50: [], p95: [6, 4], p99: [], SLO: [12, 5] };
const FONT = "12px system-ui, sans-serif";

export class Lines {
  constructor(place, names, { text, tick = text, log = false, ticks }) {
    Object.assign(this, { names, text, span: [0, 1] });
    this.values = names.map(() => make("output", { className: "num" }));
    this.keys = names.map((name, i) => make("span", { className: `key ${name}` }, make("i"), name, " ", this.values[i]));
    this.plot = make("div", { className: "plot", role: "img" });
    place.append(this.plot, make("p", { className: "legend" }, ...this.keys));
    const line = () => getComputedStyle(place).getPropertyValue("border-top-color");
    const grid = { stroke: line, width: 1 };
    const axis = { font: FONT, stroke: () => getComputedStyle(this.plot).color, grid, ticks: { ...grid, size: 4 } };
    this.chart = new uPlot({
      ...this.size(), legend: { show: false }, cursor: { drag: { x: false, y: false }, y: false }, padding: [10, 16, 0, 0],
      scales: { x: { time: true, range: () => this.span }, y: { distr: log ? 3 : 1, range: log ? logRange : linearRange } },
      axes: [
        { ...axis, space: 60, values: (_, splits) => splits.map(one => clock(one * 1000)) },
        { ...axis, size: 66, ...(ticks && at(ticks)), values: (_, splits) => splits.map(tick) },
      ],
      // The colour of a line is that of its key in the legend, so CSS alone knows the palette of both themes.
      series: [{}, ...names.map((name, i) => {
        const stroke = () => getComputedStyle(this.keys[i]).getPropertyValue("border-top-color");
        const points = name === "SLO" ? { show: false } : { size: 4, fill: stroke };
        return { stroke, width: name === "p99" ? 2.5 : 1.5, dash: DASHES[name], points };
      })],
      hooks: { setCursor: [() => this.say()] },
    }, [[], ...names.map(() => [])], this.plot);
    new ResizeObserver(() => this.chart.setSize(this.size())).observe(this.plot);
    new MutationObserver(() => this.chart.redraw()).observe(document.documentElement, { attributes: true });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.chart.redraw());
  }

  size() {
    return { width: Math.max(200, this.plot.clientWidth), height: this.plot.clientHeight || 240 };
  }

  set(span, xs, columns, about) {
    this.span = span;
    this.chart.setData([xs, ...columns]);
    const last = columns.map(column => column.findLast(one => one !== null));
    this.plot.ariaLabel = `${about}. ${this.names.map((name, i) => `${name} now ${this.text(last[i])}`).join(", ")}.`;
    this.last = last;
    this.say();
  }

  say() {
    const at = this.chart?.cursor.idx;
    this.values.forEach((value, i) => show(value, this.text(at == null ? this.last?.[i] : this.chart.data[i + 1][at])));
  }
}

const at = ticks => ({ splits: (_, axis, min, max) => ticks.filter(one => one >= min && one <= max), filter: (_, splits) => splits });
const logRange = (_, min, max) => (min > 0 ? [min / 1.6, max * 1.6] : [1, 100]);
const linearRange = (_, min, max) => [0, max > 0 ? max * 1.15 : 0.01];

const IN_ENGINE = ["queue", "encode", "filter", "retrieve", "score", "select"];
const ORDER = ["request", "decode", "features", "engine", ...IN_ENGINE, "rules", "encode_json"];
const named = stage => (stage === "request" ? "total" : stage);
const KEPT_S = 600, TABLE_S = 60, POINT_S = 30;

export class Stages {
  constructor() {
    this.polls = [];
    this.points = [];
    this.rows = new Map();
    this.chosen = "request";
    const tick = value => `${+(value * 1000).toPrecision(3)} ms`;
    this.lines = new Lines(byId("stage-chart"), ["p50", "p99"], { text: milliseconds, tick });
    ORDER.forEach(stage => this.row(stage));
    this.draw();
  }

  // Takes the text of /metrics; returns the figures of the last minute, or null before there are two readings.
  add(text) {
    const now = Date.now() / 1000, reading = readMetrics(text);
    if (this.polls.length && !figures(reading, this.polls.at(-1).reading)) this.polls = [];
    this.polls.push({ at: now, reading });
    this.polls = this.polls.filter(poll => poll.at >= now - KEPT_S);
    const last = this.since(now - TABLE_S);
    if (!last) return null;
    this.points.push({ at: now, stages: this.since(now - POINT_S).stages });
    this.points = this.points.filter(point => point.at >= now - KEPT_S);
    this.table(last);
    this.draw();
    return last;
  }

  since(at) {
    const newest = this.polls.at(-1);
    const older = this.polls.find(poll => poll.at >= at && poll !== newest) ?? this.polls.at(-2);
    return older ? { ...figures(newest.reading, older.reading), seconds: newest.at - older.at } : null;
  }

  table({ stages }) {
    const extra = Object.keys(stages).filter(stage => !ORDER.includes(stage)).sort();
    for (const name of [...ORDER, ...extra]) {
      if (!stages[name]) continue;
      const stage = stages[name], cells = this.row(name);
      const top = Math.max(...[...stage.buckets.keys()].filter(Number.isFinite));
      for (const [i, q] of [0.5, 0.99].entries()) {
        const value = quantile(stage, q);
        show(cells[i], `${value === top ? "≥ " : ""}${milliseconds(value)}`);
      }
      show(cells[2], milliseconds(stage.count ? stage.sum / stage.count : null));
    }
  }

  row(name) {
    if (!this.rows.has(name)) {
      const button = make("button", { type: "button", className: "choose", textContent: named(name) });
      button.onclick = () => { this.chosen = name; this.draw(); };
      const cells = [0, 1, 2].map(() => make("td", { className: "num", textContent: "–" }));
      const row = make("tr", { className: IN_ENGINE.includes(name) ? "inner" : "" }, make("th", { scope: "row" }, button), ...cells);
      this.rows.set(name, { button, cells });
      byId("stages").tBodies[0].append(row);
    }
    return this.rows.get(name).cells;
  }

  draw() {
    for (const [name, { button }] of this.rows) button.ariaPressed = name === this.chosen;
    show(byId("stage-of"), named(this.chosen));
    const now = Date.now() / 1000, column = q => this.points.map(point => quantile(point.stages[this.chosen], q));
    const xs = this.points.map(point => point.at);
    this.lines.set([now - KEPT_S, now], xs, [column(0.5), column(0.99)], `Latency: ${named(this.chosen)}`);
  }
}
