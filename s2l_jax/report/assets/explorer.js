"use strict";
// The explorer. Texts of the pool are only ever set as text of an element, never as HTML.
(() => {
  const all = dataOf("explorer-data");
  const PAGE = window.innerWidth < 640 ? 10 : 20, EXAMPLES = 4, CURVES = 60, MEANS = 60;
  const COLORS = dataOf("theme").range.category, GREY = "#8a8f98";
  const LOSS_COLORS = ["#440154", "#3b528b", "#21918c", "#5ec962", "#d8c81f"]; // viridis, dark enough on white
  const count = all.row.length, last = all.steps.length - 1;
  const state = { run: all.runs[0], cluster: null, row: null, color: "cluster", place: Object.keys(all.maps)[0], shown: PAGE };
  let labels, clusters, taken, map, curves;

  const make = (tag, text = "", attributes = {}) => {
    const made = document.createElement(tag);
    made.textContent = text;
    Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
    return made;
  };
  const fill = (list, options) => list.replaceChildren(...options.map(([value, text]) => make("option", text, { value })));
  const number = (value) => value.toLocaleString("en");
  const many = (value, noun) => `${number(value)} ${noun}${value === 1 ? "" : "s"}`;
  const lossOf = (i) => all.losses[i][last];
  const sourceOf = (i) => all.sources[all.source[i]] ?? "";
  const percent = (part, whole) => (whole ? `${Math.round((100 * part) / whole)} %` : "–");
  const about = (i) => [
    `row ${number(all.row[i])}${all.sources.length ? `, ${sourceOf(i)}` : ""}`,
    `cluster ${labels[i]}, ${taken.has(i) ? "taken" : "left"}, last loss ${lossOf(i).toFixed(3)}`,
    ...(all.texts ? [all.texts[i][0].slice(0, 160), all.texts[i][1].slice(0, 160)] : []),
  ].join("\n");

  const ranks = all.losses.map((_, i) => i).sort((a, b) => lossOf(a) - lossOf(b));
  const quantile = new Float64Array(count);
  ranks.forEach((i, rank) => { quantile[i] = count > 1 ? rank / (count - 1) : 0; });

  const fits = () => {
    const text = byId("filter-text").value.trim().toLowerCase();
    const [source, cluster, wanted] = ["source", "cluster", "taken"].map((name) => byId(`filter-${name}`).value);
    const [low, high] = ["low", "high"].map((name) => byId(`filter-${name}`).value);
    return (i) => (!source || all.source[i] === Number(source))
      && (!cluster || labels[i] === Number(cluster))
      && (!wanted || taken.has(i) === (wanted === "1"))
      && (low === "" || lossOf(i) >= Number(low)) && (high === "" || lossOf(i) <= Number(high))
      && (!text || all.id[i].includes(text) || (all.texts && all.texts[i].some((part) => part.toLowerCase().includes(text))));
  };

  const colorOf = {
    cluster: (i) => (labels[i] < 0 ? GREY : COLORS[labels[i] % COLORS.length]),
    source: (i) => COLORS[all.source[i]] ?? GREY,
    taken: (i) => (taken.has(i) ? COLORS[0] : COLORS[1]),
    loss: (i) => LOSS_COLORS[Math.min(LOSS_COLORS.length - 1, Math.floor(quantile[i] * LOSS_COLORS.length))],
  };
  const key = () => {
    const named = (pairs) => pairs.flatMap(([color, text]) => {
      const dot = make("span", "● ");
      dot.style.color = color;
      return [dot, make("span", `${text}  `)];
    });
    if (state.color === "cluster") return named([[GREY, "colours repeat: the list tells clusters apart"]]);
    if (state.color === "taken") return named([[COLORS[0], "taken"], [COLORS[1], "left"]]);
    if (state.color === "loss") return named([[LOSS_COLORS[0], "least last loss"], [LOSS_COLORS[2], "median"], [LOSS_COLORS[4], "most"]]);
    const rest = all.sources.length > COLORS.length ? [[GREY, "other sources"]] : [];
    return named([...all.sources.slice(0, COLORS.length).map((name, k) => [COLORS[k], name]), ...rest]);
  };

  const drawMap = (matches) => {
    const places = all.maps[state.place];
    const rows = places.map(([x, y], i) => {
      const own = state.cluster === null || labels[i] === state.cluster;
      const picked = i === state.row;
      return {
        i, x, y, about: about(i), color: colorOf[state.color](i),
        opacity: picked ? 1 : matches(i) ? (own ? 0.85 : 0.12) : 0.02,
        size: picked ? 160 : own && state.cluster !== null ? 34 : 18, order: picked ? 2 : own ? 1 : 0,
      };
    });
    byId("explorer-key").replaceChildren(...key());
    map?.data("rows", rows).runAsync();
  };

  const points = (losses, line, extra) => losses.map((y, t) => ({ x: all.steps[t], y, line, ...extra }));
  const membersOf = (cluster) => all.row.map((_, i) => i).filter((i) => labels[i] === cluster);

  // Left first, so that what was taken, which is less, is on top.
  const drawnMembers = (members) => [false, true].flatMap((wanted) => members.filter((i) => taken.has(i) === wanted).slice(0, CURVES / 2));

  const drawCurves = () => {
    const some = clusters.map((_, k) => k).filter((k) => clusters[k].size).slice(0, MEANS);
    const members = state.cluster === null ? [] : membersOf(state.cluster);
    const own = clusters[state.cluster];
    const set = {
      means: some.flatMap((k) => points(clusters[k].mean, `mean ${k}`, { about: `cluster ${k}, ${many(clusters[k].size, "row")}` })),
      rows: drawnMembers(members).flatMap((i) => points(all.losses[i], i, { about: about(i), taken: taken.has(i) ? "taken" : "left" })),
      mean: own ? points(own.mean, "mean", { about: `mean of cluster ${state.cluster}` }) : [],
      one: state.row === null ? [] : points(all.losses[state.row], "one", { about: about(state.row) }),
    };
    Object.entries(set).forEach(([name, rows]) => curves?.data(name, rows));
    curves?.runAsync();
    byId("explorer-curves-title").textContent = own ? `Trajectories of cluster ${state.cluster}` : "Mean trajectories of the clusters";
  };

  const textOf = (i) => {
    const box = make("div", "", { class: "text" });
    box.append(make("small", `row ${number(all.row[i])} · id ${all.id[i]}${all.sources.length ? ` · ${sourceOf(i)}` : ""} · last loss ${lossOf(i).toFixed(3)}`
      + `${all.tokens ? ` · ${many(all.tokens[i], "token")}` : ""}`));
    if (all.texts) box.append(make("span", all.texts[i][0], { class: "prompt" }), make("span", all.texts[i][1], { class: "response" }));
    return box;
  };

  const drawCluster = () => {
    const own = clusters[state.cluster];
    document.querySelectorAll("#explorer-clusters button").forEach((button) => {
      button.setAttribute("aria-pressed", String(Number(button.dataset.cluster) === state.cluster));
    });
    const facts = byId("explorer-facts"), examples = byId("explorer-examples");
    if (!own) {
      facts.textContent = "No cluster is picked.";
      examples.replaceChildren();
      return;
    }
    const picked = state.run.picked[state.cluster] ?? 0;
    const sources = own.sources.map(([code, size]) => `${all.sources[code]} ${percent(size, own.size)}`).join(", ");
    facts.textContent = `Cluster ${state.cluster}: ${many(own.size, "row")}, of which ${state.run.name} took ${number(picked)}`
      + ` (${percent(picked, own.size)}). Mean loss ${own.mean[0].toFixed(2)} at step ${number(all.steps[0])},`
      + ` ${own.mean[last].toFixed(2)} at step ${number(all.steps[last])}.${sources ? ` Sources: ${sources}.` : ""}`;
    const members = membersOf(state.cluster);
    examples.replaceChildren(...[["taken", true], ["left", false]].map(([word, wanted]) => {
      const column = make("div");
      const some = members.filter((i) => taken.has(i) === wanted);
      column.append(make("h3", some.length ? `${word[0].toUpperCase()}${word.slice(1)}` : `None of the shown rows was ${word}`));
      some.slice(0, EXAMPLES).forEach((i) => column.append(textOf(i)));
      return column;
    }));
  };

  const drawRow = () => {
    const box = byId("explorer-row");
    box.replaceChildren(...(state.row === null ? [] : [make("h3", "The picked row"), textOf(state.row)]));
  };

  const drawRows = (matches) => {
    const found = all.row.map((_, i) => i).filter(matches);
    byId("filter-status").textContent = `${number(found.length)} of ${many(count, "shown row")} fit.`;
    byId("filter-rows").replaceChildren(...found.slice(0, state.shown).map((i) => {
      const row = make("tr");
      const cell = (label, text) => { const made = make("td", text, { "data-label": label }); row.append(made); return made; };
      const open = make("button", number(all.row[i]), { type: "button" });
      open.addEventListener("click", () => pickRow(i));
      cell("row", "").append(open);
      cell("source", sourceOf(i));
      cell("cluster", String(labels[i]));
      cell("taken", taken.has(i) ? "taken" : "left");
      cell("last loss", lossOf(i).toFixed(3));
      cell("text", all.texts ? all.texts[i].map((part) => part.slice(0, 140)).join(" → ") : `id ${all.id[i]}`).classList.add("text-cell");
      return row;
    }));
    byId("filter-more").hidden = found.length <= state.shown;
  };

  const update = () => {
    const matches = fits();
    drawMap(matches);
    drawCurves();
    drawCluster();
    drawRow();
    drawRows(matches);
  };

  const pickCluster = (cluster) => {
    state.cluster = cluster;
    if (state.row !== null && labels[state.row] !== cluster) state.row = null;
    update();
  };
  const pickRow = (i) => {
    state.row = i;
    state.cluster = labels[i] < 0 ? null : labels[i];
    update();
  };

  const pickRun = (name) => {
    state.run = all.runs.find((run) => run.name === name);
    const clustering = all.clusterings[state.run.clustering];
    [labels, clusters, taken] = [clustering.labels, clustering.clusters, new Set(state.run.taken)];
    const order = clusters.map((_, k) => k).filter((k) => clusters[k].size).sort((a, b) => clusters[b].size - clusters[a].size);
    const most = Math.max(...order.map((k) => clusters[k].size), 1);
    byId("explorer-clusters").replaceChildren(...order.map((k) => {
      const picked = state.run.picked[k] ?? 0;
      const button = make("button", "", {
        type: "button", "data-cluster": k, "aria-label": `cluster ${k}: ${many(clusters[k].size, "row")}, ${number(picked)} taken`,
        title: `cluster ${k}: ${many(clusters[k].size, "row")}, ${number(picked)} taken`,
      });
      const bar = make("span", "", { class: "bar" }), part = make("i");
      bar.style.width = `${(100 * clusters[k].size) / most}%`;
      part.style.width = `${(100 * picked) / clusters[k].size}%`;
      bar.append(part);
      button.append(make("span", `${k} · ${number(clusters[k].size)}`), bar);
      button.addEventListener("click", () => pickCluster(k));
      const item = make("li");
      item.append(button);
      return item;
    }));
    const numbers = clusters.map((_, k) => k).filter((k) => clusters[k].size);
    fill(byId("filter-cluster"), [["", "any"], ...numbers.map((k) => [k, `cluster ${k}`])]);
    if (state.cluster === null || !clusters[state.cluster]?.size) [state.cluster, state.row] = [order[0], null];
    update();
  };

  fill(byId("explorer-run"), all.runs.map((run) => [run.name, run.clustering === run.name ? run.name : `${run.name} (clusters of ${run.clustering})`]));
  fill(byId("explorer-place"), Object.keys(all.maps).map((name) => [name, name]));
  fill(byId("filter-source"), [["", "any"], ...all.sources.map((name, code) => [code, name])]);
  byId("explorer-run").addEventListener("change", (event) => pickRun(event.target.value));
  ["color", "place"].forEach((name) => byId(`explorer-${name}`).addEventListener("change", (event) => {
    state[name] = event.target.value;
    update();
  }));
  const refilter = () => { state.shown = PAGE; update(); };
  ["text", "source", "cluster", "taken", "low", "high"].forEach((name) => byId(`filter-${name}`).addEventListener("input", refilter));
  byId("filter-clear").addEventListener("click", () => {
    ["text", "source", "cluster", "taken", "low", "high"].forEach((name) => { byId(`filter-${name}`).value = ""; });
    refilter();
  });
  byId("filter-more").addEventListener("click", () => { state.shown += PAGE; drawRows(fits()); });

  Promise.all([
    draw(byId("explorer-map"), dataOf("explorer-map-spec"), { renderer: "canvas", logLevel: 1 }),
    draw(byId("explorer-curves"), dataOf("explorer-curves-spec"), { logLevel: 1 }), // they are empty at first
  ]).then(([first, second]) => {
    [map, curves] = [first.view, second.view];
    map.addEventListener("click", (event, item) => { if (item?.datum?.i !== undefined) pickRow(item.datum.i); });
    update();
  });
  pickRun(all.runs[0].name);
})();
