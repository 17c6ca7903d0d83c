"use strict";
// Tables are drawn at once, charts as soon as Plotly is there.
const many = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
function drawHeader() {
  $("about").textContent = `runs=${DATA.pattern} \u00b7 ${DATA.created}`;
  const problems = Object.entries(DATA.problems);
  $("problems").hidden = !problems.length;
  $("problems").querySelector("summary").textContent = `${many(problems.length, "file")} could not be read`;
  $("problems")
    .querySelector("ul")
    .append(...problems.map(([file, why]) => element("li", [element("code", file), `: ${why}`])));
  $("refused").hidden = !DATA.refused.length;
  $("refused").querySelector("summary").textContent =
    `${many(DATA.refused.length, "command")} ended before anything was done, most likely by a mistake in it`;
  $("refused")
    .querySelector("ul")
    .append(
      ...DATA.refused.map(({ name, overrides, reason }) =>
        element("li", [element("code", [name, ...overrides].join(" ")), reason ? `: ${reason}` : null]),
      ),
    );
}

// What was chosen, by which split, and what it reaches on the reported one.
function drawCards() {
  const statuses = Object.groupBy(RUNS, (run) => run.metrics.status || "no status");
  const rest = Object.entries(statuses).map(([status, runs]) => `${runs.length} ${status}`);
  const cards = [["runs", String(RUNS.length), rest.join(", ")]];
  const chosen = benchmark();
  if (chosen) {
    const [best, small] = [RUNS[chosen.best], RUNS[chosen.small]];
    const by = `chosen by ${chosen.chosen_by}`;
    const split = best.metrics.split ?? "test";
    cards.push([`top-1 % on ${split}`, figure(best, "top1"), `${by}: ${label(best)}`]);
    cards.push(["score, within a point of it", figure(small, "micronet_score"), `${by}: ${label(small)}`]);
    const dense = RUNS[chosen.dense];
    const [ours, theirs] = [small.metrics.storage_bytes, dense.metrics.storage_bytes];
    const change = small.metrics.top1 - dense.metrics.top1;
    const note = `${show(change, "top1_change")} points against ${label(dense)}`;
    cards.push(["times smaller", ours && theirs ? (theirs / ours).toFixed(1) : "\u2013", note]);
  }
  $("cards").replaceChildren(
    ...cards.map(([k, v, note]) =>
      element("div", [element("dt", k), element("dd", [v, element("small", note, { title: note })])]),
    ),
  );
  const left = chosen?.not_compared;
  const flattered = chosen && chosen.chosen_by === (RUNS[chosen.best].metrics.split ?? "test");
  const notes = [
    flattered ? `${chosen.chosen_by} chooses and reports here: the chosen are flattered.` : null,
    left ? `${many(left, "run")} without a top-1 of the images that choose: shown, but not chosen from.` : null,
  ];
  $("chosen").textContent = notes.filter(Boolean).join(" ");
}

function columns() {
  const held = (key) => RUNS.some((run) => !missing(value(run, key)));
  const known = Object.keys(COLUMNS);
  const others = [...new Set(RUNS.flatMap((run) => Object.keys(run.metrics)))].filter((key) => !known.includes(key));
  const telling = others.filter((key) => TELLING.test(key));
  const rest = others.filter((key) => !TELLING.test(key));
  return [...known.filter(held), ...telling, ...(state.every && !printing() ? rest : [])];
}
function drawTable() {
  const keys = columns(),
    shown = visible(),
    [, down, by] = /^(-?)(.*)$/.exec(state.sort || "name");
  const heading = (key) => {
    const title = COLUMNS[key]?.[0] ?? (key === "name" ? "run" : key.replaceAll("_", " "));
    const button = element("button", element("span", title + scaleOf(key)[1]), { type: "button" });
    button.title = MEANS[key] ?? (key === "name" ? "" : key);
    button.onclick = () => {
      state.sort = by === key && !down ? `-${key}` : key;
      redraw();
    };
    const sorted = by === key ? (down ? "descending" : "ascending") : "none";
    return element("th", button, { scope: "col", "aria-sort": sorted, class: key === "name" ? "text" : "" });
  };
  const done = shown.filter((run) => run.benchmark && run.benchmark === state.benchmark); // only these can be compared
  const numbers = (key) => done.map((run) => value(run, key)).filter((v) => typeof v === "number");
  const best = Object.fromEntries(keys.map((key) => [key, COLUMNS[key]?.[4]?.(...numbers(key))]));
  const most = Object.fromEntries(keys.map((key) => [key, Math.max(...numbers(key))]));
  const cell = (run, key) => {
    const v = value(run, key);
    const bar = COLUMNS[key]?.[3] && v > 0 && done.includes(run),
      isBest = !missing(v) && done.length > 1 && done.includes(run) && v === best[key];
    const kind = [bar ? "bar" : "", isBest ? "best" : "", typeof v === "string" ? "text" : ""].join(" ");
    const split = key === "top1" && run.metrics.split && run.metrics.split !== "test" ? run.metrics.split : null;
    const against = key in MEANS && RUNS[run.against ?? -1];
    return element("td", [show(v, key), split ? element("small", ` ${split}`) : null], {
      class: kind,
      ...(bar ? { style: `--part:${(100 * v) / most[key]}%` } : {}),
      ...(against ? { title: `against ${label(against)}` } : {}),
    });
  };
  const about = (run) => {
    const { stage, status } = run.metrics;
    const parent = RUNS[run.parent ?? -1];
    const parts = [
      stage,
      parent ? `from ${parent.number}` : null,
      status === "completed" ? null : element("span", show(status), { class: `pill ${status}` }),
      run.short || null,
    ].filter((part) => !missing(part));
    const separated = parts.flatMap((part, i) => (i ? [" \u00b7 ", part] : [part]));
    const chain = lineage(run).map((each) => each.name);
    return element("small", separated, { title: [chain.join(" \u2192 "), ...run.own].join("\n") });
  };
  const row = (run) => {
    const name = element("button", breakable(run.name), { type: "button", title: "compare with A below" });
    name.onclick = () => choose(run.number);
    const front = run.front
      ? element("span", " \u25c6", { class: "mark", title: `on the Pareto front of ${run.benchmark}` })
      : null;
    const number = element("span", `${run.number} `, { class: "number" });
    const first = element("th", [number, name, front, about(run)], { scope: "row" });
    const made = element("tr", [first, ...keys.map((key) => cell(run, key))]);
    made.classList.toggle("chosen", run.number === Number(state.b));
    return made;
  };
  $("runs").tHead.replaceChildren(element("tr", ["name", ...keys].map(heading)));
  const sorted = [...shown].sort((x, y) => compare(value(x, by), value(y, by), down ? -1 : 1));
  $("runs").tBodies[0].replaceChildren(...sorted.map(row));
  $("shown").textContent =
    shown.length < RUNS.length ? `${shown.length} of ${RUNS.length} runs shown, in the charts too.` : "";
}

function drawPair() {
  const [a, b] = [RUNS[state.a - 1], RUNS[state.b - 1]];
  for (const [id, run] of Object.entries({ a, b }))
    $(`lineage-${id}`).textContent = lineage(run)
      .map((each) => `${each.number} ${each.name}`)
      .join(" \u2192 ");
  const keys = [...new Set([...Object.keys(COLUMNS), ...Object.keys(a.metrics), ...Object.keys(b.metrics)])];
  const head = (last) =>
    element("tr", [
      element("th", "", { class: "text" }),
      element("th", "A"),
      element("th", "B"),
      last ? element("th", last) : null,
    ]);
  const figures = keys
    .filter((key) => typeof a.metrics[key] === "number" || typeof b.metrics[key] === "number")
    .map((key) => {
      const [x, y] = [a.metrics[key], b.metrics[key]];
      const ratio = typeof x === "number" && typeof y === "number" && x ? `${(y / x).toFixed(3)}` : "";
      return element("tr", [
        element("th", element("code", breakable(key)), { scope: "row" }),
        ...[x, y].map((v) =>
          element("td", missing(v) ? "\u2013" : v.toLocaleString("en", { maximumSignificantDigits: 6 })),
        ),
        element("td", ratio),
      ]);
    });
  $("figures").tHead.replaceChildren(head("B / A"));
  $("figures").tBodies[0].replaceChildren(...figures);
  const all = [...new Set([...Object.keys(a.config), ...Object.keys(b.config)])]
    .filter((key) => a.config[key] !== b.config[key])
    .sort();
  const setting = (run, key) => (key in run.config ? String(run.config[key]) : "\u2013");
  const differ = all.map((key) =>
    element("tr", [
      element("th", element("code", breakable(key)), { scope: "row" }),
      ...[a, b].map((run) => element("td", breakable(setting(run, key)), { class: "text long" })),
    ]),
  );
  $("settings").tHead.replaceChildren(
    element(
      "tr",
      ["", "A", "B"].map((t) => element("th", t, { class: "text" })),
    ),
  );
  $("settings").tBodies[0].replaceChildren(
    ...(differ.length ? differ : [element("tr", element("td", "none", { class: "text", colspan: 3 }))]),
  );
}

const TICKS = ["every", "helpers", "whole"];
function choose(number) {
  state.b = number;
  redraw();
}
function redraw() {
  for (const id of ["a", "b", "filter", "status", "benchmark", "cost", "quantity", "mapped"])
    if ($(id).value !== (state[id] ?? "")) $(id).value = state[id] ?? "";
  for (const id of TICKS) $(id).checked = Boolean(state[id]);
  store();
  drawCards();
  drawTable();
  if (RUNS.length) drawPair();
  if (window.Plotly) drawCharts();
}
function options(id, entries, fallback) {
  $(id).append(...entries.map(([v, text]) => element("option", text, { value: v })));
  if (!entries.some(([v]) => String(v) === state[id])) state[id] = fallback;
  $(id).onchange = () => {
    state[id] = $(id).value;
    redraw();
  };
}
function begin() {
  const first = DATA.benchmarks[0];
  const places = first ? [first.dense, [first.small, first.best].find((place) => place !== first.dense)] : [];
  const pair = { a: RUNS[places[0]] ?? RUNS[0], b: RUNS[places[1] ?? places[0]] ?? RUNS.at(-1) };
  for (const [id, run] of Object.entries(pair))
    options(
      id,
      RUNS.map((r) => [r.number, clip(label(r), 90)]),
      run ? String(run.number) : "",
    );
  options(
    "benchmark",
    DATA.benchmarks.map(({ name }) => [name, name]),
    first?.name ?? "",
  );
  $("benchmark-label").hidden = !first;
  const timed = RUNS.some((run) => run.benchmark && !missing(run.metrics.latency_ms));
  options(
    "cost",
    [["micronet_score", "MicroNet score"], ...(timed ? [["latency_ms", "milliseconds"]] : [])],
    "micronet_score",
  );
  $("cost-label").hidden = !timed;
  const mapped = RUNS.filter((run) => run.sensitivity.length);
  options(
    "mapped",
    mapped.map((run) => [run.number, clip(label(run), 90)]),
    mapped.length ? String(mapped[0].number) : "",
  );
  $("map-panel").hidden = !mapped.length;
  const quantities = [...new Set(RUNS.flatMap((run) => Object.keys(run.history)))].sort();
  options(
    "quantity",
    quantities.map((q) => [q, q]),
    quantities.find((q) => q === "epoch val_top1") ?? quantities[0] ?? "",
  );
  const statuses = [...new Set(RUNS.map((run) => run.metrics.status).filter(Boolean))];
  options("status", [["", "all"], ...statuses.map((s) => [s, s])], "");
  $("filter").oninput = () => {
    state.filter = $("filter").value;
    redraw();
  };
  for (const id of TICKS)
    $(id).onchange = () => {
      state[id] = $(id).checked ? "1" : "";
      redraw();
    };
  $("helpers-label").hidden = !helpers || helpers === RUNS.length;
  $("helpers-count").textContent = `${helpers} without accuracy (${HELPERS.join(", ")})`;
  drawHeader();
  redraw();
  $("main").hidden = false;
}
begin();
