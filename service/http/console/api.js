// Asking the service, and turning what it says into words and figures.

export class Problem extends Error {
  constructor(status, { title = `Status ${status}`, detail = "", errors = [] } = {}) {
    super(detail || title);
    Object.assign(this, { status, title, detail, errors });
  }
}

export async function ask(path, body) {
  const options = { cache: "no-store", signal: AbortSignal.timeout(4000) };
  const headers = { "Content-Type": "application/json" };
  if (body) Object.assign(options, { method: "POST", body: JSON.stringify(body), headers });
  let response, text;
  try {
    response = await fetch(path, options);
    text = await response.text();
  } catch {
    throw new Problem(0, { title: "The service does not answer" });
  }
  let content = text;
  if (response.headers.get("Content-Type")?.includes("json")) {
    try { content = JSON.parse(text); } catch { throw new Problem(response.status, { detail: "Its JSON cannot be read" }); }
  }
  if (!response.ok) throw new Problem(response.status, typeof content === "object" ? content : undefined);
  return content;
}

export const byId = id => document.getElementById(id);

// Ids and titles come from outside: everything is a property or a text node, nothing is ever parsed as HTML.
export function make(tag, props = {}, ...children) {
  const { role, scope, label, ...rest } = props;
  const element = Object.assign(document.createElement(tag), rest);
  if (role) element.role = role;
  if (scope) element.setAttribute("scope", scope);
  if (label) element.dataset.label = label;
  element.append(...children);
  return element;
}

// Writing only what changed keeps a reader's text selection and does not wake screen readers.
export function show(element, text, kind) {
  if (element.textContent !== text) element.textContent = text;
  if (kind !== undefined && element.dataset.kind !== kind) element.dataset.kind = kind;
}

const GAP = "\u00a0"; // a figure and its unit stay on one line
const known = value => value !== null && value !== undefined;
const short = value => (value < 9.95 ? value.toFixed(1).replace(/\.0$/, "") : value.toFixed(0));

export function age(seconds) {
  if (!known(seconds)) return "–";
  const size = Math.abs(seconds), sign = seconds < 0 ? "−" : "";
  if (size < 0.95) return `${sign}${Math.round(size * 1000)}${GAP}ms`;
  const [unit, length] = size < 59.5 ? ["s", 1] : size < 3570 ? ["min", 60] : size < 171000 ? ["h", 3600] : ["d", 86400];
  return `${sign}${short(size / length)}${GAP}${unit}`;
}

export function milliseconds(seconds) {
  if (!known(seconds)) return "–";
  const value = seconds * 1000;
  return `${value < 0.995 ? value.toFixed(2) : value < 99.95 ? value.toFixed(1) : value.toFixed(0)}${GAP}ms`;
}

// Never rounded up to 100 or down to 0: those two say "all" and "none".
export function percent(share) {
  if (!known(share)) return "–";
  if (share === 0 || share === 1) return `${share * 100}${GAP}%`;
  return `${Math.min(99.9, Math.max(0.1, share * 100)).toFixed(1)}${GAP}%`;
}

export const clock = (at, seconds = false) =>
  new Date(at).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", ...(seconds && { second: "2-digit" }) });

export const ago = (iso, now) => (iso ? `${age(Math.max(0, (now - Date.parse(iso)) / 1000))} ago` : "never");

const KEPT = /^(endcap_(?:requests_total|answers_total|degraded_total|stage_seconds_\w+|request_seconds_\w+))\{(.*)\} (\S+)/;
const LABEL = /(\w+)="((?:[^"\\]|\\.)*)"/g;
// The console's own polls are requests too, and must not look like traffic.
const ANSWERS = ["/v1/recommendations", "/v1/rank"];

export function readMetrics(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    const match = KEPT.exec(line);
    if (match) found.set(`${match[1]}{${match[2]}}`, Number(match[3]));
  }
  return found;
}

// What happened between two polls; null where a counter fell, which means that the service was started anew.
export function figures(newer, older) {
  const made = { requests: 0, answers: 0, by: {}, reasons: {}, stages: {} };
  for (const [series, value] of newer) {
    const change = value - (older.get(series) ?? 0);
    if (change < 0) return null;
    const [name, inside] = [series.slice(0, series.indexOf("{")), series.slice(series.indexOf("{"))];
    const labels = Object.fromEntries(Array.from(inside.matchAll(LABEL), ([, key, text]) => [key, text]));
    if (labels.endpoint !== undefined && !ANSWERS.includes(labels.endpoint)) continue;
    if (name === "endcap_requests_total") {
      made.requests += change;
      if (labels.status === "200") made.answers += change;
    } else if (name === "endcap_answers_total") {
      const who = `${labels.model}@${labels.version}${labels.group === "default" ? "" : ` as ${labels.group}`}`;
      made.by[who] = (made.by[who] ?? 0) + change;
    } else if (name === "endcap_degraded_total") made.reasons[labels.reason] = (made.reasons[labels.reason] ?? 0) + change;
    else addTo((made.stages[labels.stage ?? "request"] ??= { buckets: new Map(), sum: 0, count: 0 }), name, labels.le, change);
  }
  return made;
}

function addTo(stage, name, le, change) {
  if (name.endsWith("_sum")) stage.sum += change;
  else if (name.endsWith("_count")) stage.count += change;
  else if (name.endsWith("_bucket")) {
    const bound = le === "+Inf" ? Infinity : Number(le);
    stage.buckets.set(bound, (stage.buckets.get(bound) ?? 0) + change);
  }
}

// By linear interpolation inside the bucket, as Prometheus does; past the last bound the bound itself.
export function quantile(stage, q) {
  if (!stage?.count) return null;
  let below = 0, from = 0;
  for (const [bound, count] of [...stage.buckets].sort(([a], [b]) => a - b)) {
    const over = q * stage.count - below;
    if (count - below >= over) return bound === Infinity ? from : from + ((bound - from) * over) / (count - below);
    [below, from] = [count, bound];
  }
  return from;
}
