// The page's clock: asks the service every few seconds and shows how it is and how old its features are.

import { age, ago, ask, byId, clock, make, milliseconds, percent, quantile, show } from "./api.js";
import { Batches } from "./batches.js";
import { Lines, Stages } from "./charts.js";
import { Skew } from "./skew.js";
import { tryIt } from "./tryit.js";

// `?every=1` for those who watch an incident; the tests use it too.
const EVERY_S = Math.min(60, Math.max(0.5, Number(new URLSearchParams(location.search).get("every")) || 5));
const TARGET = 0.99;
const WINDOWS = ["5m", "1h", "24h"];
const HOUR = 3600, DAY = 24 * HOUR;
const TICKS = [0.001, 0.01, 0.1, 1, 5, 15, 60, 300, 900, HOUR, 4 * HOUR, DAY, 4 * DAY, 14 * DAY, 60 * DAY, 365 * DAY];
const COLUMNS = ["SLO", "Newest event", "Last materialized", "Coverage", "In the store",
  "Served, 5 min", "Served, 1 h", "Served, 24 h"];

const stages = new Stages();
const batches = new Batches();
const skew = new Skew();
const ages = new Lines(byId("age-chart"), ["p50", "p95", "p99", "SLO"], { text: age, log: true, ticks: TICKS });
const rows = new Map();
let polls = 0;
const chosen = { view: null, window: "1h", seriesAt: 0 };

function themes() {
  const button = byId("theme"), root = document.documentElement, order = ["auto", "light", "dark"];
  const set = name => {
    root.dataset.theme = name;
    localStorage.setItem("endcap-theme", name);
    show(button, `Theme: ${name}`);
  };
  button.onclick = () => set(order[(order.indexOf(root.dataset.theme) + 1) % order.length]);
  const kept = localStorage.getItem("endcap-theme");
  set(order.includes(kept) ? kept : "auto");
}

const attempt = promise => promise.then(value => ({ value }), error => ({ error }));

async function poll() {
  const asked = ["/readyz", "/v1/freshness", "/metrics", "/v1/engine"].map(path => attempt(ask(path)));
  const rarely = polls++ % 3 ? null : attempt(ask("/v1/skew")); // an hour hardly changes in a second
  const [ready, freshness, metrics, engine, skewed] = await Promise.all([...asked, rarely]);
  const alive = ready.error?.status === 0 ? !(await attempt(ask("/healthz"))).error : true;
  status(alive, ready.error, freshness.value?.sample_error);
  if (freshness.value) views(freshness.value);
  if (metrics.value) rates(stages.add(metrics.value));
  if (engine.value) batches.set(engine.value);
  if (skewed?.value) skew.set(skewed.value);
  const trouble = freshness.error ?? metrics.error ?? engine.error ?? skewed?.error;
  if (alive && trouble && !ready.error) show(byId("ready-why"), `Some figures are missing: ${trouble.message}`);
  if (!trouble) show(byId("updated"), clock(Date.now(), true));
  if (Date.now() - chosen.seriesAt > 30000) await series();
}

const WITHOUT_REDIS = "What still works: recommendations go on with defaults in place of the shopper's features, and say so in \
“degraded”. What does not: events and item changes are refused (status 503) and must be sent again; shoppers cannot be \
looked up; ages in the store are not sampled.";
const NOT_READY = "What still works: this page. Recommendations may be refused (status 503) until it is.";

function status(alive, notReady, sampleError) {
  const [word, kind] = !alive ? ["No answer", "bad"] : notReady ? ["Not ready", "bad"] : ["Ready", "good"];
  show(byId("ready"), `${kind === "good" ? "✓" : "✗"} ${word}`, kind);
  const well = "Redis answers, the model is loaded";
  show(byId("ready-why"), alive ? notReady?.message ?? well : "No reply from /readyz or /healthz");
  const title = document.title.replace(/^✗ /, "");
  document.title = kind === "good" && !sampleError ? title : `✗ ${title}`;
  const why = notReady?.message ?? sampleError ?? "";
  if (!alive) {
    banner("The service does not answer.", `The figures are those of ${byId("updated").textContent}. This page keeps asking.`);
  } else if (/redis/i.test(`${why} ${sampleError}`)) {
    banner("Redis does not answer.", `${WITHOUT_REDIS} (${why})`);
  } else if (sampleError && !notReady) {
    banner("Ages in the store are not sampled.", `Recommendations go on as ever. (${why})`);
  } else if (notReady?.status === 0) {
    banner("The service is alive, but does not say whether it is ready.", "Recommendations may still be answered.");
  } else if (notReady) {
    banner("The service is not ready.", `${NOT_READY} (${why})`);
  } else banner();
}

function banner(title = "", text = "") {
  const place = byId("banner");
  if (place.textContent === (title && `${title} ${text}`)) return;
  place.replaceChildren(...(title ? [make("strong", { textContent: title }), ` ${text}`] : []));
}

const WORDS = { context: "late events", features: "no features", user: "unknown user", item: "unknown item", count: "too few items" };

function rates(last) {
  if (!last) return;
  const over = `over ${Math.round(last.seconds)} s`;
  show(byId("rate"), `${(last.requests / last.seconds).toFixed(1)} /s`);
  const failed = last.requests ? 1 - last.answers / last.requests : null;
  const fate = failed === null ? "none" : failed ? `${percent(failed)} refused or failed,` : "all answered,";
  show(byId("rate-note"), `${fate} ${over}`);
  const reasons = Object.entries(last.reasons).filter(([, count]) => count > 0).sort(([, a], [, b]) => b - a);
  const total = reasons.reduce((sum, [, count]) => sum + count, 0);
  // The counter is by reason, and one answer can have two: of several reasons the sum is only a bound.
  const bound = reasons.length > 1 ? "≤ " : "";
  show(byId("degraded"), last.answers ? bound + percent(Math.min(1, total / last.answers)) : "–", total ? "warn" : "");
  const told = reasons.map(([reason, count]) => `${WORDS[reason] ?? reason} ${percent(Math.min(1, count / last.answers))}`);
  show(byId("degraded-note"), last.answers ? told.join(", ") || "nothing was missing" : "no answers to judge by");
  const by = Object.entries(last.by).filter(([, count]) => count > 0).sort(([, a], [, b]) => b - a);
  const whole = by.reduce((sum, [, count]) => sum + count, 0);
  const shares = by.map(([who, count]) => (by.length > 1 ? `${who} ${percent(count / whole)}` : who));
  show(byId("answered-by"), shares.length ? `Answered by ${shares.join(", ")}` : "Nothing was answered");
  const { request } = last.stages;
  show(byId("latency"), milliseconds(quantile(request, 0.99)));
  show(byId("latency-note"), request?.count ? `p50 ${milliseconds(quantile(request, 0.5))}` : "no requests to judge by");
}

function views({ project, at, views: found }) {
  show(byId("project"), project);
  const now = Date.parse(at);
  for (const view of found) fill(rows.get(view.view) ?? addRow(view), view, now);
  for (const [name, row] of rows) {
    if (found.some(view => view.view === name)) continue;
    row.line.remove();
    rows.delete(name);
  }
  if (!rows.has(chosen.view) && found.length) choose((found.find(missed) ?? found[0]).view);
}

const late = group => group?.within_slo != null && group.within_slo < TARGET;
const missed = view => [view.sample, ...WINDOWS.map(window => view.served[window])].some(late);

function addRow({ view, entity }) {
  const button = make("button", { type: "button", className: "choose", textContent: view, ariaPressed: "false" });
  button.onclick = () => choose(view);
  const mark = make("span", { className: "mark" });
  const head = make("th", { scope: "row", role: "rowheader" }, button, make("small", { textContent: `per ${entity}` }), mark);
  const cells = COLUMNS.map(label => make("td", { className: "num", role: "cell", label }, make("span"), make("small")));
  const row = { line: make("tr", { role: "row" }, head, ...cells), button, mark, cells, slo: null };
  byId("views").tBodies[0].append(row.line);
  rows.set(view, row);
  return row;
}

function fill(row, view, now) {
  const { sample, served } = view;
  const judged = [sample, ...WINDOWS.map(window => served[window])];
  const recent = [sample, served["5m"]];
  const words = view.slo_s == null ? ["– No SLO", ""]
    : recent.some(late) ? ["✗ SLO missed", "bad"]
    : judged.some(late) ? ["! SLO missed earlier", "warn"]
    : judged.some(one => one?.within_slo != null) ? ["✓ Within SLO", "good"] : ["? No ages yet", ""];
  show(row.mark, ...words);
  row.slo = view.slo_s;
  const covered = sample && 1 - sample.missing - sample.outside_max_age;
  const coverNote = sample ? `${percent(sample.missing)} missing` : "not sampled";
  const max = view.max_age_s == null ? "no max" : `max ${age(view.max_age_s)}`;
  put(row.cells[0], view.slo_s == null ? "none" : age(view.slo_s), max);
  put(row.cells[1], ago(view.newest_event, now), "", view.newest_event);
  put(row.cells[2], ago(view.last_materialized, now), "", view.last_materialized);
  put(row.cells[3], percent(covered), coverNote);
  judged.forEach((group, i) => agesOf(row.cells[4 + i], group, i === 0));
}

function put(cell, text, note, at) {
  show(cell.firstChild, text);
  show(cell.lastChild, note);
  if (at) cell.title = new Date(at).toLocaleString("en-GB", { timeZoneName: "short" });
}

function agesOf(cell, group, stored) {
  const none = stored ? "not sampled" : group?.requests ? "no row found" : "not served";
  const three = group?.age_s ? ["p50", "p95", "p99"].map(q => age(group.age_s[q])) : ["–"];
  cell.firstChild.className = "three";
  while (cell.firstChild.children.length < 3) cell.firstChild.append(make("span"));
  three.concat("", "").slice(0, 3).forEach((text, i) => show(cell.firstChild.children[i], text));
  const share = percent(group?.within_slo);
  const judged = group?.within_slo == null ? "" : late(group) ? `✗ SLO missed: ${share}` : `${share} within SLO`;
  show(cell.lastChild, group?.age_s ? judged : none);
  cell.dataset.kind = late(group) ? "bad" : "";
}

function choose(view, window = chosen.window) {
  Object.assign(chosen, { view, window });
  for (const [name, row] of rows) row.button.ariaPressed = name === view;
  for (const button of document.querySelectorAll("[data-window]")) button.ariaPressed = button.dataset.window === window;
  series();
}

async function series() {
  const { view, window } = chosen;
  if (!view) return;
  chosen.seriesAt = Date.now();
  const by = window === "24h" ? "hour" : "minute", step = window === "24h" ? 3600 : 60;
  const { value } = await attempt(ask(`/v1/freshness/${encodeURIComponent(view)}?window=${window}&by=${by}`));
  if (view !== chosen.view || window !== chosen.window) return;
  const drawn = `${view} ${window}`;
  if (!value && chosen.drawn === drawn) return;
  chosen.drawn = drawn;
  const found = new Map((value?.groups ?? []).map(group => [Date.parse(group.group) / 1000, group.age_s]));
  show(byId("age-of"), found.size ? view : `${view}: none in this time`);
  const now = Date.now() / 1000, seconds = window === "24h" ? DAY : HOUR;
  const last = found.size ? Math.max(...found.keys()) : now;
  const xs = Array.from({ length: seconds / step + 1 }, (_, i) => last - seconds + i * step);
  const column = q => xs.map(x => { const at = found.get(x)?.[q]; return at == null ? null : Math.max(at, 0.001); });
  const slo = rows.get(view)?.slo ?? null;
  ages.set([now - seconds, now], xs, [column("p50"), column("p95"), column("p99"), xs.map(() => slo)], `Served age of ${view}`);
}

themes();
tryIt();
for (const button of document.querySelectorAll("[data-window]")) button.onclick = () => choose(chosen.view, button.dataset.window);
document.addEventListener("visibilitychange", () => { if (!document.hidden) chosen.seriesAt = 0; });

// The second poll comes early, because rates need two.
for (let wait = Math.min(1, EVERY_S); ; wait = EVERY_S) {
  if (!document.hidden) await poll().catch(error => console.error(error));
  await new Promise(done => setTimeout(done, wait * 1000));
}
