// One shopper's answer: the items, what the model saw of the shopper, and what it had to do without.

import { age, ask, byId, make, Problem, show } from "./api.js";

const FIELDS = ["user_id", "placement", "item_id", "count"];
const DEGRADED = {
  context: "The events that it was to know of were not in the features in time: those that were there were used.",
  last_known: "The feature store did not answer in time: what it last said of this shopper was used.",
  features: "The feature store did not answer in time, or held something unreadable: defaults were used.",
  user: "The user is unknown and the session is empty: popular items.",
  item: "The item in view is not in the catalogue: popular items.",
  nprobe: "Little time or many requests: a quarter of the index's lists was searched.",
  candidates: "Little time or many requests: a quarter of the candidates was looked at.",
  ranker: "Little time or many requests: the order is the sources' own.",
  popular: "The engine had no time: popular items.",
  count: "Fewer items may be shown than were asked for.",
};
const STATUS = {
  present: ["✓ Used", "good"],
  missing: ["✗ Missing: this shopper has no row, defaults were used", "warn"],
  outside_max_age: ["✗ Outside its max age: not used, defaults were", "bad"],
  unreadable: ["✗ Unreadable: defaults were used", "bad"],
  not_read: ["✗ Not read: nobody asked the store, or it did not answer", "warn"],
};
const SOURCES = {
  personal: "near this shopper", session: "near this visit", covisit: "touched together with recent items",
  similar: "like the item in view", popular: "popular items",
  cold_start: "new since the model was trained: where its category is",
};

const LAST = 8; // of a list; lists of items have the newest last

let turn = 0;

export function tryIt() {
  const form = byId("try");
  form.onsubmit = async event => {
    event.preventDefault();
    const mine = ++turn;
    const wanted = body(new FormData(form));
    clear();
    show(byId("try-summary"), "Asking…", "");
    const [answer, stored] = await Promise.allSettled([
      ask("/v1/recommendations", wanted),
      wanted.user_id ? ask(`/v1/features/user/${encodeURIComponent(wanted.user_id)}`) : null,
    ]);
    if (mine !== turn) return;
    if (answer.status === "rejected") return refused(answer.reason);
    const { items, model, took_ms } = answer.value;
    const what = `${items.length} ${items.length === 1 ? "item" : "items"}`;
    show(byId("try-summary"), `${what} from model ${model.name}, version ${model.version}, in ${took_ms.toFixed(1)} ms.`, "");
    const asked = wanted.user_id && stored.status === "rejected" ? stored.reason : null;
    byId("try-answer").replaceChildren(...degraded(answer.value), split(list(items), seen(answer.value, stored.value, asked)));
  };
}

// A count that is no number goes out as it was typed, so that the service itself says what is wrong with it.
function body(data) {
  const wanted = { explain: true };
  for (const field of FIELDS) {
    const text = data.get(field).trim();
    if (text) wanted[field] = field === "count" && /^-?\d+$/.test(text) ? Number(text) : text;
  }
  return wanted;
}

function clear() {
  byId("try-answer").replaceChildren();
  for (const field of FIELDS) {
    byId(field).removeAttribute("aria-invalid");
    show(byId(`${field}-problem`), "");
  }
}

function refused(problem) {
  const { title, detail, errors = [] } = problem instanceof Problem ? problem : { title: String(problem) };
  show(byId("try-summary"), `✗ ${title}`, "bad");
  for (const { path, message } of errors) {
    if (!FIELDS.includes(path)) continue;
    byId(path).setAttribute("aria-invalid", "true");
    show(byId(`${path}-problem`), `✗ ${message}`);
  }
  const listed = errors.map(({ path, message }) => make("li", {}, make("code", { textContent: path || "body" }), ` ${message}`));
  const told = listed.length ? make("ul", {}, ...listed) : make("p", { textContent: detail || "There is no more detail." });
  byId("try-answer").replaceChildren(make("div", { className: "note", id: "try-problem" }, told));
}

function degraded({ degraded: reasons }) {
  if (!reasons.length) return [];
  const listed = reasons.map(reason => make("li", { textContent: DEGRADED[reason] ?? reason }));
  const head = make("strong", { textContent: "Degraded" });
  return [make("div", { className: "note", id: "try-degraded" }, head, make("ul", {}, ...listed))];
}

const split = (...children) => make("div", { className: "split wide" }, ...children);
const text = content => make("td", {}, content);
const number = content => make("td", { className: "num", textContent: content });

function table(caption, heads, rows) {
  const columns = heads.map(head => make("th", { scope: "col", textContent: head }));
  const head = make("thead", {}, make("tr", {}, ...columns));
  return make("table", {}, make("caption", { textContent: caption }), head, make("tbody", {}, ...rows));
}

function list(items) {
  const rows = items.map(({ item_id, score, source, explain }) => make("tr", {},
    make("th", { scope: "row" }, explain.title || item_id, make("small", {}, [item_id, explain.category].filter(Boolean).join(", "))),
    text(make("span", { textContent: source, title: SOURCES[source] ?? "" })),
    number(score.toFixed(3)),
    number(explain.price == null ? "–" : explain.price.toFixed(2))));
  return make("div", { id: "try-items" }, table("Items, best first", ["Title", "Source", "Score", "Price"], rows));
}

// Ages and statuses are the answer's own; the second request adds each view's max age and what is stored now.
function seen(answer, stored, problem) {
  const views = new Map((stored?.views ?? []).map(view => [view.view, view]));
  const names = new Set([...Object.keys(answer.features), ...views.keys()]);
  const parts = [...names].map(name => oneView(name, answer, views.get(name)));
  if (problem) parts.push(make("p", { className: "quiet", textContent: `What is stored cannot be shown: ${problem.message}` }));
  if (!names.size) parts.push(make("p", { className: "quiet", textContent: "No stored features were used." }));
  return make("div", { id: "try-features" }, make("h3", { textContent: "Features" }), ...parts);
}

function oneView(name, { features, inputs = {} }, stored) {
  const { status, age_s } = features[name] ?? stored;
  const [words, kind] = features[name] ? STATUS[status] ?? [status, ""] : ["– Not an input of this model", ""];
  const limit = stored?.max_age_s == null ? "" : ` of at most ${age(stored.max_age_s)}`;
  const mark = make("span", { className: "mark", textContent: words });
  mark.dataset.kind = kind;
  const head = make("span", { className: "view" }, make("strong", { textContent: name }), mark,
    make("span", { className: "num", textContent: age_s == null ? "no age" : `${age(age_s)} old${limit}` }));
  const given = Object.keys(inputs).filter(key => key.startsWith(`${name}:`)).map(key => key.slice(name.length + 1));
  const all = [...new Set([...given, ...Object.keys(stored?.features ?? {})])];
  const pairs = all.map(feature => {
    const key = `${name}:${feature}`;
    const value = key in inputs ? inputs[key] : stored.features[feature];
    const note = key in inputs ? (value == null ? "default" : said(value)) : `${said(value)} (stored, not used)`;
    const shown = make("dd", { className: "num", textContent: note });
    return make("div", { className: note.length > 20 ? "long" : "" }, make("dt", { textContent: feature }), shown);
  });
  return make("details", { open: true, className: "view" }, make("summary", {}, head), make("dl", { className: "pairs" }, ...pairs));
}

function said(value) {
  if (value == null) return "none";
  if (Array.isArray(value)) {
    const last = value.slice(-LAST).map(said).join(", ");
    return value.length ? `${value.length}: ${value.length > LAST ? "… " : ""}${last}` : "empty";
  }
  if (typeof value === "number" && !Number.isInteger(value)) return String(Number(value.toPrecision(5)));
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}
