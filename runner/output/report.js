"use strict";
(() => {
  // The data are columns, one item a host; see the Go side. Nothing of it ever becomes markup: text goes in as text.
  const data = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);
  const make = (tag, props, ...children) => {
    const node = Object.assign(document.createElement(tag), props);
    node.append(...children);
    return node;
  };
  const svg = (tag, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
    for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
    if (text !== undefined) node.textContent = text;
    return node;
  };

  // Each outcome has a colour and, for those who cannot tell these apart, a letter; what is ok stays in the background.
  const looks = {
    ok: ["var(--ok)", ""], exit: ["#c8500a", "x"], signal: ["#a3243f", "!"], timeout: ["#b07d00", "t"],
    refused: ["#6f52a3", "r"], unreachable: ["#5a5fc0", "u"], dns: ["#8a5a9e", "d"], hostkey: ["#b0317f", "k"], auth: ["#c04a90", "a"],
    protocol: ["#8f3b76", "p"], noports: ["#7a4b63", "n"], unknown: ["#4f5b66", "?"], cancelled: ["#7b858f", "c"], skipped: ["#9aa3ab", "-"],
  };
  const outcomeOf = (host) => data.endings[data.ending[host]][0];
  const endingOf = (host) => data.endings[data.ending[host]][1];
  const chip = (outcome) => {
    const node = make("span", { className: "chip", textContent: looks[outcome][1] });
    node.style.background = looks[outcome][0];
    node.setAttribute("aria-hidden", "true");
    return node;
  };
  const count = data.names.length;
  const number = (n) => n.toLocaleString("en");
  const plural = (n, noun) => number(n) + " " + noun + (n === 1 ? "" : "s");
  const seconds = (micros) => {
    if (micros < 0) return "";
    if (micros < 1e3) return micros + " µs";
    if (micros < 1e6) return Number((micros / 1e3).toPrecision(3)) + " ms";
    if (micros < 60e6) return Number((micros / 1e6).toPrecision(3)) + " s";
    const whole = Math.round(micros / 1e6), h = Math.floor(whole / 3600), m = Math.floor(whole / 60) % 60, s = whole % 60;
    return (h ? h + " h " : "") + m + " min" + (h ? "" : " " + s + " s");
  };

  // What is shown: hosts with one of the chosen outcomes, all of them if none is, in which the words are found.
  const chosen = new Set();
  let words = "", shown = new Uint8Array(count).fill(1), shownCount = count;
  const lower = (texts) => texts.map((text) => text.toLowerCase());
  let haystack; // made when first needed
  const select = () => {
    if (words && !haystack) {
      haystack = { names: lower(data.names), errors: lower(data.errors), endings: lower(data.endings.map((e) => e[1])), labels: lower(data.labels), groups: lower(data.groups.map((g) => g.text)) };
    }
    let inGroup, inError, inEnding, inLabels;
    if (words) {
      const has = (text) => text.includes(words);
      inGroup = haystack.groups.map(has);
      inError = haystack.errors.map(has);
      inEnding = haystack.endings.map(has);
      inLabels = haystack.labels.map(has);
    }
    shownCount = 0;
    for (let i = 0; i < count; i++) {
      let yes = chosen.size === 0 || chosen.has(outcomeOf(i));
      if (yes && words) {
        yes = haystack.names[i].includes(words) || inEnding[data.ending[i]] || (data.group[i] >= 0 && inGroup[data.group[i]]) ||
          (data.error[i] >= 0 && inError[data.error[i]]) || (data.label[i] >= 0 && inLabels[data.label[i]]);
      }
      shown[i] = yes ? 1 : 0;
      shownCount += shown[i];
    }
    $("shown").textContent = shownCount === count ? plural(count, "host") : number(shownCount) + " of " + plural(count, "host");
  };
  const refresh = () => {
    select();
    drawGrid();
    drawHistogram();
    drawGroups();
    drawTable();
  };

  // The bar, and the legend that is the filter.
  const totals = Object.keys(looks).map((outcome) => [outcome, data.summary.outcomes[outcome] || 0]).filter((entry) => entry[1] > 0);
  for (const [outcome, n] of totals) {
    const part = make("span", { title: plural(n, "host") + " " + outcome });
    part.style.flex = n + " 1 0";
    part.style.background = looks[outcome][0];
    $("bar").append(part);
    const button = make("button", { type: "button" }, chip(outcome), outcome + " " + number(n));
    button.dataset.outcome = outcome;
    button.setAttribute("aria-pressed", "false");
    button.addEventListener("click", () => {
      if (!chosen.delete(outcome)) chosen.add(outcome);
      button.setAttribute("aria-pressed", String(chosen.has(outcome)));
      refresh();
    });
    $("legend").append(button);
  }
  $("bar").setAttribute("aria-label", totals.map(([outcome, n]) => number(n) + " " + outcome).join(", "));

  // Search, a moment after the last key.
  let typed = 0;
  const find = () => {
    const text = $("search").value.trim().toLowerCase();
    if (text === words) return;
    words = text;
    refresh();
  };
  $("search").addEventListener("input", () => {
    clearTimeout(typed);
    typed = setTimeout(find, 120);
  });
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && document.activeElement !== $("search") && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      $("search").focus();
    }
  });

  // The grid: a canvas, whose cost hardly depends on the number of hosts.
  const grid = $("grid"), pen = grid.getContext("2d");
  const cell = [[1000, 18], [5000, 13], [20000, 10], [200000, 5]].find(([most]) => count <= most)?.[1] ?? 3;
  let columns = 1, at = -1, fine = "";
  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const drawCell = (i) => {
    const x = (i % columns) * cell, y = Math.floor(i / columns) * cell, gap = cell > 4 ? 1 : 0;
    pen.clearRect(x, y, cell, cell);
    pen.globalAlpha = shown[i] ? 1 : 0.13;
    const [colour, letter] = looks[outcomeOf(i)];
    pen.fillStyle = letter ? colour : fine;
    pen.fillRect(x, y, cell - gap, cell - gap);
    if (letter && cell >= 9) {
      pen.fillStyle = "#fff";
      pen.fillText(letter, x + (cell - gap) / 2, y + (cell - gap) / 2 + 0.5);
    }
    pen.globalAlpha = 1;
    if (i === at) {
      pen.strokeStyle = style("--ink");
      pen.lineWidth = 2;
      pen.strokeRect(x + 1, y + 1, Math.max(1, cell - gap - 2), Math.max(1, cell - gap - 2));
    }
  };
  function drawGrid() {
    columns = Math.max(1, Math.floor(grid.parentElement.clientWidth / cell));
    const width = Math.min(columns, Math.max(1, count)) * cell, height = Math.max(1, Math.ceil(count / columns)) * cell;
    const ratio = Math.min(window.devicePixelRatio || 1, 2, 16000 / height); // a canvas has a largest size
    grid.width = width * ratio;
    grid.height = height * ratio;
    grid.style.width = width + "px";
    grid.style.height = height + "px";
    pen.scale(ratio, ratio);
    pen.font = "bold " + Math.round(cell * 0.75) + "px monospace";
    pen.textAlign = "center";
    pen.textBaseline = "middle";
    fine = style("--ok");
    for (let i = 0; i < count; i++) drawCell(i);
  }
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawGrid);
  const point = (i, pinned) => {
    if (i < 0 || i >= count || i === at) return;
    const before = at;
    at = i;
    if (before >= 0) drawCell(before);
    drawCell(i);
    const parts = [make("b", { textContent: data.names[i] }), ": " + endingOf(i)];
    if (data.error[i] >= 0) parts.push(": " + data.errors[data.error[i]]);
    if (data.connect[i] >= 0) parts.push("; accepted after " + seconds(data.connect[i]) + ", ran " + seconds(data.run[i]));
    if (data.label[i] >= 0) parts.push("; " + data.labels[data.label[i]]);
    if (data.group[i] >= 0) {
      parts.push(make("button", { type: "button", textContent: "its output", onclick: () => reveal(i) }));
    }
    $("host").replaceChildren(...parts);
  };
  const under = (event) => {
    const box = grid.getBoundingClientRect(), x = Math.floor((event.clientX - box.left) / cell), y = Math.floor((event.clientY - box.top) / cell);
    return x >= 0 && x < columns && y >= 0 ? y * columns + x : -1;
  };
  let held = false; // a click holds the cell until the next one
  grid.addEventListener("pointermove", (event) => { if (!held) point(under(event)); });
  grid.addEventListener("click", (event) => {
    const i = under(event);
    held = !(held && i === at);
    point(i);
  });
  grid.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    if (step) {
      // Over those that are filtered out.
      let i = at < 0 ? (step > 0 ? -step : count) : at;
      do { i += step; } while (i >= 0 && i < count && !shown[i]);
      held = true;
      point(i);
    } else if (event.key === "Home" || event.key === "End") {
      held = true;
      point(event.key === "Home" ? shown.indexOf(1) : shown.lastIndexOf(1));
    } else if (event.key === "Enter" && at >= 0 && data.group[at] >= 0) {
      reveal(at);
    } else {
      return;
    }
    event.preventDefault();
  });

  // How long the hosts ran, on a logarithmic scale.
  function drawHistogram() {
    let least = Infinity, most = 0, n = 0;
    for (let i = 0; i < count; i++) {
      const t = data.run[i];
      if (!shown[i] || t < 0) continue;
      n++;
      least = Math.min(least, Math.max(t, 1));
      most = Math.max(most, t, 1);
    }
    if (n === 0) {
      $("histogram").replaceChildren("None of these hosts has accepted the command.");
      return;
    }
    const wide = Math.max(200, $("histogram").clientWidth), high = 144, floor = high - 18, bins = Math.max(8, Math.min(60, Math.floor(wide / 16)));
    let from = Math.log10(least), to = Math.log10(most);
    if (to - from < 0.5) [from, to] = [from - 0.25, to + 0.25];
    const place = (micros) => (Math.log10(Math.max(micros, 1)) - from) / (to - from);
    const bars = new Array(bins).fill(0);
    for (let i = 0; i < count; i++) {
      if (shown[i] && data.run[i] >= 0) bars[Math.min(bins - 1, Math.floor(place(data.run[i]) * bins))]++;
    }
    const tallest = Math.max(...bars), width = wide / bins;
    const chart = svg("svg", { viewBox: `0 0 ${wide} ${high}`, role: "img", "aria-label": "Run times of " + plural(n, "host") + ", from " + seconds(least) + " to " + seconds(most) });
    bars.forEach((k, b) => {
      if (k === 0) return;
      const tall = Math.max(2, (k / tallest) * (floor - 14));
      const bar = svg("rect", { x: b * width + 0.5, y: floor - tall, width: width - 1, height: tall });
      const edge = (i) => seconds(Math.round(10 ** (from + (i * (to - from)) / bins)));
      bar.append(svg("title", {}, plural(k, "host") + ": " + edge(b) + " to " + edge(b + 1)));
      chart.append(bar);
    });
    chart.append(svg("line", { class: "axis", x1: 0, x2: wide, y1: floor, y2: floor }));
    let free = -1; // up to where the axis has labels
    for (let power = Math.floor(from); power <= Math.ceil(to); power++) {
      for (const times of to - from < 1.5 ? [1, 2, 5] : [1]) {
        const x = place(times * 10 ** power) * wide;
        if (x < 0 || x > wide - 40 || x < free) continue;
        chart.append(svg("text", { x, y: high - 4 }, seconds(Math.round(times * 10 ** power))));
        free = x + 60;
      }
    }
    const of = data.summary.run;
    if (of && shownCount === count) {
      for (const [name, line] of [["p50", 0], ["p90", 1], ["p99", 2]]) {
        const x = place(of[name] * 1e6) * wide;
        chart.append(svg("line", { x1: x, x2: x, y1: 0, y2: floor }));
        const right = x > wide - 40;
        chart.append(svg("text", { x: right ? x - 3 : x + 3, y: 10 + 11 * line, "text-anchor": right ? "end" : "start" }, name));
      }
    }
    $("histogram").replaceChildren(chart);
  }
  const percentiles = (p) => ["p50", "p90", "p99", "max"].map((name) => name + " " + seconds(Math.round(p[name] * 1e6))).join(", ");
  if (data.summary.run) {
    $("percentiles").append(
      make("p", { textContent: "Until the command was accepted: " + percentiles(data.summary.connect) }),
      make("p", { textContent: "From then to its end: " + percentiles(data.summary.run) }));
  }
  if (data.summary.stragglers) {
    const { hosts, names } = data.summary.stragglers, first = names.slice(0, 30);
    const rest = hosts > first.length ? ", and " + number(hosts - first.length) + " more" : "";
    $("percentiles").append(make("p", { textContent: "Stragglers, over three times the median (" + number(hosts) + "): " + first.join(", ") + rest }));
  }

  // The outputs, a page of groups at a time, each filled when it is opened.
  const page = 100;
  let groupPage = page, groupsShown = [];
  const fill = (details, group) => {
    if (details.dataset.filled) return;
    details.dataset.filled = "true";
    const pre = make("pre", { tabIndex: 0 });
    const full = () => pre.replaceChildren(group.text);
    const differing = () => pre.replaceChildren(...group.diff.split("\n").map((line) => make("span", {
      className: line.startsWith("@@") ? "at" : line.startsWith("+") ? "add" : line.startsWith("-") ? "del" : "", textContent: line || " ",
    })));
    const body = [];
    if (group.diff) {
      const views = [["difference to the largest group", differing], ["in full", full]].map(([name, show]) => {
        const button = make("button", { type: "button", textContent: name });
        button.addEventListener("click", () => {
          views.forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
          show();
        });
        return button;
      });
      body.push(make("div", { className: "tools" }, ...views));
      views[0].click();
    } else {
      full();
    }
    if (group.note) body.push(make("p", { className: "note", textContent: group.note }));
    if (group.text || group.diff) body.push(pre);
    details.append(...body);
  };
  const groupNode = (index) => {
    const group = data.groups[index], [outcome, ending] = data.endings[group.ending];
    const about = [outcome === "ok" ? "" : ending, group.bytes ? "" : "no output", group.why || ""].filter((text) => text).join(", ");
    const details = make("details", { id: "group" + index }, make("summary", {},
      chip(outcome), make("b", { textContent: plural(group.hosts, "host") }), " ", make("span", { className: "about", textContent: about }),
      make("div", { className: "names", textContent: group.folded })));
    details.addEventListener("toggle", () => { if (details.open) fill(details, group); });
    return details;
  };
  function drawGroups() {
    const open = new Set([...document.querySelectorAll("details[open]")].map((node) => node.id));
    const some = new Uint8Array(data.groups.length);
    for (let i = 0; i < count; i++) if (shown[i] && data.group[i] >= 0) some[data.group[i]] = 1;
    groupsShown = [...some.keys()].filter((g) => some[g]);
    groupPage = page;
    $("groups").replaceChildren();
    appendGroups(0);
    for (const g of groupsShown.slice(0, groupPage)) {
      if (open.has("group" + g)) $("group" + g).open = true;
    }
  }
  function appendGroups(from) {
    const nodes = groupsShown.slice(from, groupPage).map(groupNode), left = groupsShown.length - groupPage;
    $("groups").querySelector(".more")?.remove();
    if (groupsShown.length === 0) nodes.push(make("p", { textContent: "None of these hosts has an output." }));
    if (left > 0) {
      nodes.push(make("p", { className: "more" }, make("button", { type: "button", textContent: "show more (" + number(left) + " left)", onclick: () => {
        groupPage += page;
        appendGroups(groupPage - page);
      } })));
    }
    $("groups").append(...nodes);
  }
  function reveal(host) {
    const place = groupsShown.indexOf(data.group[host]);
    if (place < 0) return; // filtered out
    if (place >= groupPage) {
      const from = groupPage;
      groupPage = Math.ceil((place + 1) / page) * page;
      appendGroups(from);
    }
    const node = $("group" + data.group[host]);
    node.open = true;
    fill(node, data.groups[data.group[host]]);
    node.scrollIntoView({ block: "center" });
    (node.querySelector("pre") || node.firstChild).focus({ preventScroll: true });
  }

  // The table, sorted by a column, a page at a time.
  let sortBy = 0, down = false, rows = page, sorted = [];
  const byText = (texts) => (a, b) => (texts(a) < texts(b) ? -1 : texts(a) > texts(b) ? 1 : a - b);
  const columnsOf = [
    ["in the run", (a, b) => a - b, (i) => make("td", { className: "number", textContent: number(i + 1) })],
    ["host", byText((i) => data.names[i]), (i) => make("td", { className: "name", textContent: data.names[i] })],
    ["ended", (a, b) => data.ending[a] - data.ending[b] || a - b, (i) => make("td", { className: "how" }, chip(outcomeOf(i)), " " + endingOf(i))],
    ["accepted after", (a, b) => data.connect[a] - data.connect[b] || a - b, (i) => make("td", { className: "number", textContent: seconds(data.connect[i]) })],
    ["ran", (a, b) => data.run[a] - data.run[b] || a - b, (i) => make("td", { className: "number", textContent: seconds(data.run[i]) })],
    ["error", byText((i) => (data.error[i] < 0 ? "" : data.errors[data.error[i]])), (i) => make("td", { className: "error", textContent: data.error[i] < 0 ? "" : data.errors[data.error[i]] })],
  ];
  const heads = columnsOf.map(([name], c) => {
    const button = make("button", { type: "button", textContent: name });
    button.addEventListener("click", () => {
      down = sortBy === c && !down;
      sortBy = c;
      drawTable();
    });
    return make("th", { scope: "col" }, button);
  });
  $("table").tHead.rows[0].append(...heads);
  function drawTable() {
    sorted = [];
    for (let i = 0; i < count; i++) if (shown[i]) sorted.push(i);
    sorted.sort((a, b) => (down ? -1 : 1) * columnsOf[sortBy][1](a, b));
    heads.forEach((head, c) => head.setAttribute("aria-sort", c !== sortBy ? "none" : down ? "descending" : "ascending"));
    rows = page;
    $("table").tBodies[0].replaceChildren();
    appendRows(0);
  }
  function appendRows(from) {
    $("table").tBodies[0].append(...sorted.slice(from, rows).map((i) => make("tr", {}, ...columnsOf.map(([, , show]) => show(i)))));
    const left = sorted.length - rows;
    $("more").replaceChildren(...(left > 0 ? [make("button", { type: "button", textContent: "show more (" + number(left) + " left)", onclick: () => {
      rows += page;
      appendRows(rows - page);
    } })] : []));
  }

  // A sheet of paper shows what is open; if nothing is, the first groups.
  window.addEventListener("beforeprint", () => {
    if (!document.querySelector("details[open]")) {
      for (const node of [...document.querySelectorAll("details")].slice(0, 20)) {
        node.open = true;
        fill(node, data.groups[Number(node.id.slice(5))]);
      }
    }
  });
  let resized = 0;
  window.addEventListener("resize", () => {
    cancelAnimationFrame(resized);
    resized = requestAnimationFrame(() => { drawGrid(); drawHistogram(); });
  });

  refresh();
  document.querySelector("details")?.setAttribute("open", "");
  document.documentElement.dataset.ready = "true";
})();
