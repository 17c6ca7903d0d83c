"use strict";
// What Plotly draws. Its texts know a little HTML, so everything from files goes through plain().
const COLOURS = ["#3b7dd8", "#d9730d", "#0f9d74", "#c0399f", "#0891b2", "#d64545", "#8b5cf6", "#8a7a12"];
const SYMBOLS = {
  train: "circle",
  prune: "triangle-down",
  qat: "square",
  ptq: "pentagon",
  eval: "x",
  pipeline: "star",
  search: "cross",
};

function layout(more) {
  const axis = { gridcolor: css("--grid"), zerolinecolor: css("--line"), linecolor: css("--line"), automargin: true };
  const { xaxis, yaxis, ...rest } = more;
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { color: css("--ink"), family: getComputedStyle(document.body).fontFamily, size: narrow() ? 11 : 12.5 },
    hoverlabel: { bgcolor: css("--panel"), bordercolor: css("--line"), font: { color: css("--ink") }, align: "left" },
    margin: { l: narrow() ? 44 : 60, r: 14, t: 14, b: 44 },
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", bgcolor: "rgba(0,0,0,0)", itemsizing: "constant" },
    dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom",
    colorway: COLOURS,
    xaxis: { ...axis, ...xaxis },
    yaxis: { ...axis, ...yaxis },
    ...rest,
  };
}
function plot(id, traces, more, said) {
  const box = $(id);
  box.querySelector(".empty")?.remove();
  box.setAttribute("aria-label", said);
  if (!traces.length) {
    if (box.data) Plotly.purge(box);
    box.append(element("div", said, { class: "empty" }));
    return;
  }
  // Before printing the box still has the screen's size: what fits on A4 and Letter, landscape, as high as style.css says.
  const paper = { width: 940, height: { front: 330, curves: 410, layers: 610 }[id] ?? box.clientHeight };
  const size = printing() ? paper : { width: box.clientWidth, height: box.clientHeight };
  Plotly.react(box, traces, layout({ ...more, ...size }), { displayModeBar: false, doubleClick: "reset" });
}

// A cost is on the axis below; milliseconds are those that stage=latency found for a run.
const COSTS = {
  micronet_score: ["MicroNet score, lower is better", "front"],
  latency_ms: ["milliseconds, lower is better", "latency_front"],
};
const cost = (run) => run.metrics[state.cost];
const onFront = (run) => run[COSTS[state.cost][1]];

// The front's axes, and where a run lies on them in pixels; a run below the axis is drawn at its lower edge.
function frontAxes(runs) {
  const box = $("front");
  const top1 = runs.map((run) => run.metrics.top1);
  const costs = runs.map(cost);
  const inside = withoutOutliers(top1, 3);
  const [low, high] = state.whole ? [Math.min(...top1), Math.max(...top1)] : [inside[0], Math.max(...top1)];
  const log = costs.every((each) => each > 0);
  const along = log ? Math.log10 : (each) => each;
  const xs = padded([along(Math.min(...costs)), along(Math.max(...costs))], 0.06);
  const ys = padded([low, high], 0.08);
  const margin = { l: narrow() ? 44 : 60, r: 14, t: 44, b: 44 };
  const [width, height] = [box.clientWidth - margin.l - margin.r, box.clientHeight - margin.t - margin.b];
  const shown = (run) => Math.max(run.metrics.top1, low);
  return {
    log,
    xs,
    ys,
    low,
    shown,
    pixels: (run) => ({
      x: (width * (along(cost(run)) - xs[0])) / (xs[1] - xs[0]),
      y: (height * (ys[1] - shown(run))) / (ys[1] - ys[0]),
    }),
  };
}
function milliseconds(run) {
  const { latency_ms: taken, latency_batch_size: batch, latency_threads: threads } = run.metrics;
  return typeof taken !== "number" ? "" : `, ${taken.toPrecision(3)} ms (batch ${batch}, threads ${threads})`;
}
function drawFront() {
  const runs = visible().filter((run) => run.benchmark && run.benchmark === state.benchmark && typeof cost(run) === "number");
  $("below").textContent = "";
  if (!runs.length) return plot("front", [], {}, "No completed run with accuracy and such a cost is shown.");
  const axes = frontAxes(runs);
  const ticks = axes.log ? logTicks(axes.xs) : [];
  const x = cost,
    y = (run) => run.metrics.top1;
  const below = runs.filter((run) => y(run) < axes.low);
  if (below.length)
    $("below").textContent =
      `Below ${axes.low.toFixed(1)} % and drawn at the lower edge: ` +
      below.map((run) => `${run.number} (${y(run).toFixed(1)} %)`).join(", ");
  const front = runs.filter(onFront).sort((p, q) => x(p) - x(q) || y(p) - y(q));
  const hover = (run) =>
    `<b>${plain(clip(label(run), 70))}</b><br>top-1 ${y(run).toFixed(2)} %, ` +
    `score ${run.metrics.micronet_score.toPrecision(4)}${milliseconds(run)}<br>` +
    `${figure(run, "storage_bytes")}, ${figure(run, "math_ops")} operations`;
  const line = {
    x: front.map(x),
    y: front.map(axes.shown),
    mode: "lines",
    name: "Pareto front",
    line: { shape: "hv", color: css("--quiet"), width: 1.5, dash: "dot" },
    hoverinfo: "skip",
  };
  // Runs at one place share a label; those on the front choose their place first.
  const same = Object.groupBy(runs, (run) => `${x(run)} ${y(run)}`);
  const text = (run) => {
    const together = same[`${x(run)} ${y(run)}`];
    return together[0] === run ? together.map((r) => r.number).join(", ") : "";
  };
  const ranked = [...runs].sort((p, q) => onFront(q) - onFront(p));
  const found = placeLabels(ranked.map((run) => ({ ...axes.pixels(run), text: text(run) })));
  const sides = new Map(ranked.map((run, i) => [run, found[i]]));
  const stages = [...new Set(runs.map((run) => run.metrics.stage))];
  const points = stages.map((stage, i) => {
    const of = runs.filter((run) => run.metrics.stage === stage);
    return {
      x: of.map(x),
      y: of.map(axes.shown),
      name: plain(stage),
      mode: "markers+text",
      customdata: of.map((run) => run.number),
      hovertext: of.map(hover),
      hoverinfo: "text",
      text: of.map((run) => (sides.get(run) ? text(run) : "")),
      textposition: of.map((run) => sides.get(run) ?? "top center"),
      textfont: { size: 11, color: css("--quiet") },
      cliponaxis: false,
      marker: {
        symbol: of.map((run) => (below.includes(run) ? "triangle-down-open" : SYMBOLS[stage] || "diamond")),
        size: of.map((run) => (run.number === Number(state.b) ? 16 : onFront(run) ? 12 : 9)),
        color: COLOURS[i % COLOURS.length],
        opacity: of.map((run) => (onFront(run) ? 1 : 0.7)),
        line: { color: css("--panel"), width: 1 },
      },
    };
  });
  plot(
    "front",
    [line, ...points],
    {
      xaxis: {
        title: { text: COSTS[state.cost][0] },
        type: axes.log ? "log" : "linear",
        range: axes.xs,
        ...(axes.log ? { tickmode: "array", tickvals: ticks, ticktext: ticks.map(String) } : {}),
      },
      yaxis: { title: { text: narrow() ? "" : "top-1 %" }, range: axes.ys },
      margin: { l: narrow() ? 44 : 60, r: 14, t: 44, b: 44 },
      hovermode: "closest",
    },
    `Top-1 against ${state.cost.replaceAll("_", " ")} of ${runs.length} runs, ${front.length} of them on the Pareto front; the table holds the numbers.`,
  );
  $("front").removeAllListeners?.("plotly_click");
  $("front").on("plotly_click", (event) => event.points[0].customdata && choose(event.points[0].customdata));
}

function drawCurves() {
  const runs = visible().filter((run) => run.history[state.quantity]);
  const chosen = Number(state.b);
  const traces = runs.map((run, i) => {
    const { step, value: values } = run.history[state.quantity];
    const strong = run.number === chosen;
    return {
      x: step,
      y: values,
      name: plain(clip(label(run), 44)),
      mode: step.length > 30 ? "lines" : "lines+markers",
      opacity: strong || runs.length < 5 ? 1 : 0.7,
      line: {
        width: strong ? 3.5 : 1.8,
        color: COLOURS[i % COLOURS.length],
        dash: ["solid", "dash", "dot"][Math.floor(i / COLOURS.length) % 3],
      },
      marker: { size: strong ? 7 : 4 },
    };
  });
  const legend =
    narrow() || runs.length > 30
      ? {}
      : { orientation: "v", x: 1.01, y: 1, yanchor: "top", font: { size: runs.length > 12 ? 9.5 : 11 } };
  plot(
    "curves",
    traces,
    {
      xaxis: { title: { text: "step" }, rangemode: "tozero" },
      yaxis: {
        title: { text: narrow() ? "" : plain(state.quantity) },
        range: padded(withoutOutliers(runs.flatMap((run) => run.history[state.quantity].value), 3), 0.05),
      },
      hovermode: "closest",
      showlegend: !narrow() && runs.length <= 30,
      legend,
    },
    runs.length ? `${state.quantity} by step of ${runs.length} runs.` : "No run that is shown has a history.jsonl.",
  );
}

const PANELS = [
  ["storage, 32-bit parameters", 1, "~s"],
  ["operations", 2, "~s"],
  ["sparsity", 3, ".2f"],
  ["weight bits", 4, "d"],
  ["input bits", 5, "d"],
];
function drawLayers() {
  const pair = [
    ["A", RUNS[state.a - 1], css("--a")],
    ["B", RUNS[state.b - 1], css("--b")],
  ].filter(([, run]) => run?.layers.length);
  const names = [...new Set(pair.flatMap(([, run]) => run.layers.map((row) => row[0])))];
  const longest = Math.min(24, Math.max(0, ...names.map((name) => name.length)));
  const place = Object.fromEntries(names.map((name, i) => [name, i]));
  const more = {
    barmode: "group",
    bargap: 0.25,
    showlegend: pair.length > 1,
    annotations: [],
    hovermode: "closest",
    margin: { l: narrow() ? 44 : 60, r: 14, t: narrow() ? 76 : 58, b: 24 + 6.2 * longest },
    legend: { orientation: "h", x: 0, y: 0.995, yanchor: "top", yref: "container", itemsizing: "constant" },
  };
  const traces = [],
    gap = 0.055,
    height = (1 - gap * (PANELS.length - 1)) / PANELS.length;
  const room = Math.max(1, Math.ceil(names.length / (($("layers").clientWidth - 70) / 15)));
  PANELS.forEach(([title, column, format], p) => {
    const top = 1 - p * (height + gap),
      suffix = p ? String(p + 1) : "";
    more[`yaxis${suffix}`] = {
      domain: [top - height, top],
      gridcolor: css("--grid"),
      zerolinecolor: css("--line"),
      rangemode: "tozero",
      nticks: 4,
      tickformat: format,
      ...(column === 3 ? { range: [0, 1] } : {}),
    };
    more.annotations.push({
      text: `<b>${title}</b>`,
      x: 0,
      xref: "paper",
      xanchor: "left",
      y: top,
      yref: "paper",
      yanchor: "bottom",
      showarrow: false,
      font: { size: 12 },
    });
    for (const [key, run, color] of pair) {
      const rows = run.layers.filter((row) => !missing(row[column]));
      traces.push({
        type: "bar",
        x: rows.map((row) => place[row[0]]),
        y: rows.map((row) => row[column]),
        yaxis: `y${suffix}`,
        name: plain(`${key}  ${clip(label(run), narrow() ? 34 : 60)}`),
        showlegend: p === 0,
        legendgroup: key,
        marker: { color },
        hovertext: rows.map((row) => plain(row[0] || "(outside layers)")),
        hovertemplate: `%{hovertext}<br>${title} %{y}<extra>${key}</extra>`,
      });
    }
  });
  const ticks = names.map((_, i) => i).filter((i) => i % room === 0);
  more.xaxis = {
    anchor: `y${PANELS.length}`,
    tickmode: "array",
    tickvals: ticks,
    ticktext: ticks.map((i) => plain(clip(names[i] || "(outside layers)", 24))),
    tickangle: -90,
    tickfont: { size: 10 },
    range: [-0.6, names.length - 0.4],
    showgrid: false,
    zeroline: false,
    automargin: false,
  };
  plot(
    "layers",
    traces,
    more,
    pair.length ? `Storage, operations, sparsity and bits of ${names.length} layers.` : "Neither run has a layers.csv.",
  );
}

function drawMap() {
  const run = RUNS[state.mapped - 1];
  if (!run) return;
  const titles = [...new Set(run.sensitivity.flatMap((row) => Object.keys(row)))].filter((title) => title !== "layer");
  const rows = [...run.sensitivity].reverse(); // Plotly draws from the bottom
  const cells = rows.map((row) => titles.map((title) => row[title] ?? ""));
  const largest = Math.max(...cells.flat().map(Number).filter(Number.isFinite), 1e-12);
  // Four decades from the largest down to the page's own colour, as in sensitivity.png.
  const dark = (text) => (text === "" ? null : Math.max(0, 1 + Math.log10(Math.max(Number(text), 1e-30) / largest) / 4));
  $("map").style.height = `${90 + 22 * rows.length}px`;
  plot(
    "map",
    [
      {
        type: "heatmap",
        x: titles.map(plain),
        y: rows.map((_, i) => i),
        z: cells.map((line) => line.map(dark)),
        zmin: 0,
        zmax: 1,
        text: cells,
        texttemplate: narrow() ? "" : "%{text}",
        customdata: rows.map((row) => titles.map(() => plain(row.layer))),
        hovertemplate: "%{customdata}<br>%{x}: %{text}<extra></extra>",
        colorscale: [
          [0, css("--panel")],
          [1, css("--b")],
        ],
        showscale: false,
        xgap: 2,
        ygap: 2,
      },
    ],
    {
      xaxis: { side: "top", type: "category", showgrid: false, tickangle: narrow() ? -60 : 0 },
      yaxis: {
        tickmode: "array",
        tickvals: rows.map((_, i) => i),
        ticktext: rows.map((row) => plain(clipStart(row.layer, narrow() ? 16 : 34))),
        showgrid: false,
        zeroline: false,
      },
      margin: { l: 20, r: 14, t: 40, b: 10 },
      dragmode: false,
    },
    `Divergence of ${rows.length} layers at ${titles.length} points.`,
  );
}

function drawCharts() {
  drawFront();
  drawMap();
  drawCurves();
  drawLayers();
}
let width = innerWidth;
new ResizeObserver(() => {
  if (width !== innerWidth) drawCharts();
  width = innerWidth;
}).observe(document.body);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawCharts);
addEventListener("beforeprint", () => {
  document.documentElement.dataset.print = "";
  redraw();
});
addEventListener("afterprint", () => {
  delete document.documentElement.dataset.print;
  redraw();
});
