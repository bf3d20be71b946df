// The section of batches: what they cost, and what to expect of the engine.

import { byId, milliseconds, show } from "./api.js";

const LEFT = 62, RIGHT = 18, TOP = 30, BOTTOM = 42, TICKS = 4;

const whole = rate => (rate < 9.95 ? rate.toFixed(1) : Math.round(rate).toLocaleString("en-GB"));
const each = rate => `${whole(rate)}\u00a0requests/s`;
const us = seconds => Math.round(seconds * 1e6).toLocaleString("en-GB");

export class Batches {
  constructor() {
    this.place = byId("batch-chart");
    this.rows = [...byId("outlook-figures").tBodies[0].rows].map(row => [...row.cells].slice(1));
    new ResizeObserver(() => this.draw()).observe(this.place);
  }

  set(report) {
    const { measured, forecast, rate } = report;
    show(byId("outlook"), sentence(report));
    const told = [measured && { rate, ...measured }, forecast?.now, forecast?.twice];
    told.forEach((one, i) => this.row(this.rows[i], one));
    this.row(this.rows[3], forecast?.capacity ? { rate: forecast.capacity, p99_s: report.slo_s } : null);
    const { worth_having, fastest, knee } = report.batches;
    const more = fastest === worth_having ? "" : `, ${fastest} when many wait`;
    const bend = knee === null ? "" : ` Half of a batch's time is fixed at ${knee.toFixed(1)} queries (the knee).`;
    show(byId("batch-size"), `${worth_having === 1 ? "One query at a time is best" : `${worth_having} queries are worth having`}${more}.${bend}`);
    this.batches = report.batches;
    this.draw();
  }

  row(cells, one) {
    show(cells[0], one ? `${whole(one.rate)} /s` : "–");
    show(cells[1], milliseconds(one?.p50_s));
    show(cells[2], milliseconds(one?.p99_s));
  }

  draw() {
    if (!this.batches) return;
    const { curve, worth_having, knee } = this.batches;
    const width = Math.max(240, this.place.clientWidth), height = this.place.clientHeight;
    const last = curve.at(-1).size, most = Math.max(...curve.map(point => point.seconds_a_query));
    const step = nice(most / TICKS), top = step * Math.ceil(most / step - 1e-9);
    const x = size => LEFT + (width - LEFT - RIGHT) * (last > 1 ? Math.log2(size) / Math.log2(last) : 0.5);
    const y = seconds => height - BOTTOM - ((height - TOP - BOTTOM) * seconds) / top;
    const parts = [];
    for (let tick = 0; tick <= Math.round(top / step); tick++) {
      const at = y(tick * step);
      parts.push(line("grid", LEFT, width - RIGHT, at, at), text(LEFT - 8, at + 4, us(tick * step), "end"));
    }
    for (const { size } of curve) parts.push(text(x(size), height - BOTTOM + 18, size));
    parts.push(text((LEFT + width - RIGHT) / 2, height - 6, "queries in a batch"), text(LEFT, 14, "µs a query", "start"));
    if (knee >= 1 && knee <= last) {
      parts.push(line("knee", x(knee), x(knee), TOP, height - BOTTOM), text(x(knee) + 5, TOP + 12, "knee", "start"));
    }
    const points = curve.map(point => `${x(point.size)},${y(point.seconds_a_query)}`).join(" ");
    parts.push(draw("polyline", { class: "fit", points }));
    for (const { size, seconds_a_query } of curve) {
      const at = { cx: x(size), cy: y(seconds_a_query) };
      parts.push(draw("circle", { class: "dot", r: 3, ...at }));
      if (size === worth_having) {
        parts.push(draw("circle", { class: "ring", r: 8, ...at }));
        parts.push(text(at.cx, at.cy - 14, `${size} worth having`, at.cx < width / 2 ? "start" : "end", "chosen"));
      }
    }
    const picture = draw("svg", { width, height, role: "img", "aria-label": this.words() });
    picture.append(...parts);
    this.place.replaceChildren(picture);
  }

  words() {
    const { curve, worth_having } = this.batches;
    const points = curve.map(({ size, seconds_a_query }) => `${size}: ${us(seconds_a_query)}`);
    return `Microseconds a query by the queries of a batch. ${points.join(", ")}. Worth having: ${worth_having}.`;
  }
}

function sentence({ rate, measured, forecast, slo_s, workers }) {
  const slo = milliseconds(slo_s).replace(/\.0+(?=\u00a0)/, "");
  const whose = workers > 1 ? `This worker, one of ${workers}: at` : "At";
  if (!forecast) {
    const now = measured ? `${whose} ${each(rate)} you have p99 ${milliseconds(measured.p99_s)}. ` : "";
    return `${now}Too little is asked for a forecast.`;
  }
  const { twice, capacity } = forecast;
  const limit = capacity === null ? `p99 leaves ${slo} at any rate.` : `beyond ${each(capacity)} it leaves ${slo}.`;
  if (!measured || !twice) return `Nothing was asked in the last minute. ${limit[0].toUpperCase()}${limit.slice(1)}`;
  const then = twice.p99_s === null ? "more come than get done" : milliseconds(twice.p99_s);
  return `${whose} ${each(rate)} you have p99 ${milliseconds(measured.p99_s)}; at twice the rate, ${then}; ${limit}`;
}

// The next of 1, 2, 5, 10, … that is no less.
function nice(step) {
  const unit = 10 ** Math.floor(Math.log10(step));
  return [1, 2, 5, 10].map(one => one * unit).find(one => one >= step * (1 - 1e-9));
}

function draw(tag, attributes) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

const line = (kind, x1, x2, y1, y2) => draw("line", { class: kind, x1, x2, y1, y2 });

function text(x, y, words, anchor = "middle", kind = "") {
  const element = draw("text", { x, y, "text-anchor": anchor, class: kind });
  element.textContent = words;
  return element;
}
