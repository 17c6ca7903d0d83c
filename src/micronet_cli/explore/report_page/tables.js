"use strict";
// Tables are drawn at once, charts as soon as Plotly is there.
function drawHeader() {
  const many = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
  $("about").textContent = `runs=${DATA.pattern} \u00b7 ${DATA.created}`;
  const done = RUNS.filter((run) => run.metrics.status === "completed");
  const rest = Object.entries(Object.groupBy(RUNS, (run) => run.metrics.status || "no status")).map(
    ([k, v]) => `${v.length} ${k}`,
  );
  const cards = [["runs", String(RUNS.length), rest.join(", ")]];
  for (const [key, title] of [
    ["top1", "best top-1 %"],
    ["micronet_score", "lowest score"],
    ["storage_bytes", "smallest storage"],
  ]) {
    const best = done
      .filter((run) => !missing(run.metrics[key]))
      .sort((x, y) => compare(x.metrics[key], y.metrics[key], key === "top1" ? -1 : 1))[0];
    cards.push([
      title,
      best ? show(best.metrics[key], key) + scaleOf(key)[1] : "\u2013",
      best ? label(best) : "no run has one",
    ]);
  }
  $("cards").append(
    ...cards.map(([k, v, note]) =>
      element("div", [element("dt", k), element("dd", [v, element("small", note, { title: note })])]),
    ),
  );
  const problems = Object.entries(DATA.problems);
  $("problems").hidden = !problems.length;
  $("problems").querySelector("summary").textContent = `${many(problems.length, "file")} could not be read`;
  $("problems")
    .querySelector("ul")
    .append(...problems.map(([file, why]) => element("li", [element("code", file), `: ${why}`])));
}

function columns() {
  const known = ["stage", "status", ...Object.keys(COLUMNS)];
  const held = (key) => RUNS.some((run) => !missing(run.metrics[key]));
  const others = [...new Set(RUNS.flatMap((run) => Object.keys(run.metrics)))].filter((key) => !known.includes(key));
  return [...known.filter(held), ...(state.every && !printing() ? others : [])];
}
function drawTable() {
  const keys = columns(),
    shown = visible(),
    [, down, by] = /^(-?)(.*)$/.exec(state.sort || "name");
  const heading = (key) => {
    const title = COLUMNS[key]?.[0] ?? HEADS[key] ?? (key === "name" ? "run" : key);
    const button = element(
      "button",
      [element("span", title + scaleOf(key)[1]), COLUMNS[key] ? element("code", breakable(key)) : null],
      { type: "button" },
    );
    button.onclick = () => {
      state.sort = by === key && !down ? `-${key}` : key;
      redraw();
    };
    const sorted = by === key ? (down ? "descending" : "ascending") : "none";
    return element("th", button, {
      scope: "col",
      "aria-sort": sorted,
      class: ["name", "stage", "status"].includes(key) ? "text" : "",
    });
  };
  const done = shown.filter((run) => run.benchmark && run.benchmark === state.benchmark); // only these can be compared
  const numbers = (key) => done.map((run) => run.metrics[key]).filter((v) => typeof v === "number");
  const best = Object.fromEntries(keys.map((key) => [key, COLUMNS[key]?.[4]?.(...numbers(key))]));
  const most = Object.fromEntries(keys.map((key) => [key, Math.max(...numbers(key))]));
  const cell = (run, key) => {
    const v = value(run, key);
    if (key === "status")
      return element(
        "td",
        element("span", show(v), { class: `pill ${["completed", "interrupted", "failed"].includes(v) ? v : ""}` }),
        { class: "text" },
      );
    const bar = COLUMNS[key]?.[3] && v > 0 && done.includes(run),
      isBest = done.length > 1 && done.includes(run) && v === best[key];
    const kind = [bar ? "bar" : "", isBest ? "best" : "", typeof v === "string" ? "text" : ""].join(" ");
    return element("td", show(v, key), { class: kind, ...(bar ? { style: `--part:${(100 * v) / most[key]}%` } : {}) });
  };
  const row = (run) => {
    const name = element("button", run.name, { type: "button", title: "compare with A below" });
    name.onclick = () => choose(run.number);
    const front = run.front
      ? element("span", " \u25c6", { class: "mark", title: "on the Pareto front", "aria-label": "on the Pareto front" })
      : null;
    const first = element(
      "th",
      [
        element("span", `${run.number} `, { class: "number" }),
        name,
        front,
        run.short ? element("small", run.short, { title: run.own.join(" ") }) : null,
      ],
      { scope: "row" },
    );
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

function choose(number) {
  state.b = number;
  redraw();
}
function redraw() {
  for (const id of ["a", "b", "filter", "status", "benchmark", "quantity"])
    if ($(id).value !== (state[id] ?? "")) $(id).value = state[id] ?? "";
  $("every").checked = Boolean(state.every);
  store();
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
  const order = (key, sign, among) => [...among].sort((x, y) => compare(x.metrics[key], y.metrics[key], sign))[0];
  const layered = RUNS.filter((run) => run.layers.length),
    pool = layered.length ? layered : RUNS;
  const front = pool.filter((run) => run.front);
  // A pipeline's last step rather than the pipeline.
  const curved = front.filter((run) => Object.keys(run.history).length);
  const b = order("micronet_score", 1, [curved, front].find((some) => some.length) ?? pool),
    rivals = pool.filter((run) => run.benchmark === b?.benchmark);
  const a = order(
    "micronet_score",
    -1,
    rivals.filter((run) => !missing(run.metrics.micronet_score)),
  );
  for (const [id, run] of [
    ["a", a ?? b],
    ["b", b],
  ])
    options(
      id,
      RUNS.map((r) => [r.number, clip(label(r), 90)]),
      run ? String(run.number) : "",
    );
  const benchmarks = Object.entries(
    Object.groupBy(
      RUNS.filter((run) => run.benchmark),
      (run) => run.benchmark,
    ),
  ).sort((x, y) => y[1].length - x[1].length);
  options(
    "benchmark",
    benchmarks.map(([name]) => [name, name]),
    benchmarks[0]?.[0] ?? "",
  );
  $("benchmark-label").hidden = !benchmarks.length;
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
  $("every").onchange = () => {
    state.every = $("every").checked ? "1" : "";
    redraw();
  };
  drawHeader();
  redraw();
  $("main").hidden = false;
}
begin();
