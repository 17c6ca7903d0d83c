"use strict";
// The runs, what is chosen, how values are written. Text from files comes to the page by textContent or plain() only.
let errors = 0;
const count = () => {
  document.documentElement.dataset.errors = ++errors;
};
addEventListener("error", count);
addEventListener("unhandledrejection", count);
addEventListener("securitypolicyviolation", count);

const DATA = JSON.parse(document.getElementById("data").textContent);
const RUNS = DATA.runs;
const $ = (id) => document.getElementById(id);
const state = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
// Key -> heading, decimals, unit, bar behind the number, which end is best, scaled without unit. A key that no run has
// makes no column.
const COLUMNS = {
  top1: ["top\u20111 %", 2, "", false, Math.max],
  top1_change: ["\u00b1 top\u20111", 2, ""],
  micronet_score: ["score", 5, "", true, Math.min],
  times_smaller: ["times smaller", 2, ""],
  storage_bytes: ["storage", 1, "B", true, Math.min],
  file_bytes: ["packed", 1, "B", true, Math.min],
  onnx_bytes: ["ONNX", 1, "B", true, Math.min],
  int8_bytes: ["int8 ONNX", 1, "B", true, Math.min],
  latency_ms: ["ms", 2, "", true, Math.min],
  latency_ratio: ["times faster", 2, "", false, Math.max],
  math_ops: ["operations", 2, "", true, Math.min, true],
  weight_sparsity: ["sparsity", 3, "", true],
  weight_bits_mean: ["weight bits", 2, ""],
  activation_bits_mean: ["input bits", 2, ""],
};
const MEANS = {
  top1_change: "points of top-1 against the nearest run it began from that was measured on the same images",
  times_smaller: "storage of that run over its own",
};
// These have no accuracy of their own: what they found out stands beside the run they began from.
const HELPERS = ["score", "export", "latency", "sensitivity", "allocate", "search"];
// Further figures that get a column without being asked for.
const TELLING = /^(?!dense_|mtas_|storage_|val_).*_(bytes|ms|top1)$/;
const missing = (v) => v === null || v === undefined || v === "";
const value = (run, key) => (key === "name" ? run.number : (run.metrics[key] ?? (key in MEANS ? run[key] : undefined)));
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const printing = () => "print" in document.documentElement.dataset;
const narrow = () => innerWidth < 700 && !printing();

function element(tag, content, attributes = {}) {
  const made = document.createElement(tag);
  for (const [key, v] of Object.entries(attributes)) made.setAttribute(key, v);
  made.append(...[content].flat().filter((part) => part !== null));
  return made;
}
// Lines break after . _ and /
const breakable = (key) => key.split(/(?<=[._\/])/).flatMap((part) => [part, element("wbr", [])]);
function compare(a, b, sign) {
  // what is missing comes last, whichever way the column is sorted
  if (missing(a) || missing(b)) return missing(a) - missing(b);
  return (
    sign *
    (typeof a === "number" && typeof b === "number"
      ? a - b
      : String(a).localeCompare(String(b), "en", { numeric: true }))
  );
}
const scales = {};
function scaleOf(key) {
  // one unit a column, by its median
  if (!scales[key]) {
    const [, , unit, , , scaled] = COLUMNS[key] || [];
    const values = RUNS.map((run) => value(run, key))
      .filter((v) => v > 0)
      .sort((x, y) => x - y);
    const middle = unit || scaled ? values[values.length >> 1] || 0 : 0;
    const [factor, prefix] =
      middle >= 1e9 ? [1e-9, "G"] : middle >= 1e6 ? [1e-6, "M"] : middle >= 1e3 ? [1e-3, "k"] : [1, ""];
    scales[key] = [factor, unit || prefix ? ` ${prefix}${unit}` : ""];
  }
  return scales[key];
}
function show(v, key) {
  if (missing(v)) return "\u2013";
  if (typeof v !== "number") return String(v);
  const column = COLUMNS[key];
  if (column)
    return (v * scaleOf(key)[0]).toLocaleString("en", {
      signDisplay: key === "top1_change" ? "exceptZero" : "auto",
      minimumFractionDigits: column[1],
      maximumFractionDigits: column[1],
    });
  return v.toLocaleString("en", { maximumSignificantDigits: 6 });
}
const figure = (run, key) => show(value(run, key), key) + scaleOf(key)[1];
function store() {
  const set = Object.entries(state).filter(([, v]) => v !== "" && v !== undefined);
  history.replaceState(null, "", "#" + new URLSearchParams(set));
}

// A search draws values of 16 digits; three tell its trials apart.
const rounded = (text) => text.replace(/\d+\.\d{4,}(e[-+]?\d+)?/g, (digits) => String(Number(Number(digits).toPrecision(3))));
const SAID_ELSEWHERE = /^(stage|init_from|hydra\..*)=/;
// What a run was given that its neighbours were not: "sparsity=0.5 lr=0.02".
const folderOf = (run) => run.name.split("/").slice(0, -1).join("/");
const families = Object.groupBy(RUNS, folderOf);
RUNS.forEach((run, i) => {
  run.number = i + 1;
  const family = folderOf(run) ? families[folderOf(run)] : [run];
  run.own = run.overrides.filter((o) => family.length < 2 || !family.every((other) => other.overrides.includes(o)));
  run.own = run.own.filter((o) => !SAID_ELSEWHERE.test(o));
  run.short = run.own.map((o) => rounded(o.replace(/^[^=]*\.(?=[^.=]+=)/, ""))).join(" ");
  run.words = [run.name, run.metrics.stage, run.metrics.status, ...run.overrides].join(" ").toLowerCase();
});
const label = (run) => `${run.number}  ${run.name}${run.short && run.short.length < 60 ? `  ${run.short}` : ""}`;
const clip = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}\u2026` : text);
const helping = (run) => HELPERS.includes(run.metrics.stage) && !run.benchmark;
const helpers = RUNS.filter(helping).length;
// What tells layers apart is at the end of their names.
const clipStart = (text, length) => (text.length > length ? `\u2026${text.slice(1 - length)}` : text);
const visible = () => {
  const words = (state.filter || "").toLowerCase().split(/\s+/);
  const all = state.helpers || helpers === RUNS.length;
  return RUNS.filter(
    (run) =>
      (all || !helping(run)) &&
      words.every((word) => run.words.includes(word)) &&
      (!state.status || run.metrics.status === state.status),
  );
};
// From the oldest to the run itself.
function lineage(run) {
  const found = [];
  for (let each = run; each && !found.includes(each); each = RUNS[each.parent ?? -1]) found.unshift(each);
  return found;
}
const benchmark = () => DATA.benchmarks.find(({ name }) => name === state.benchmark);
