"use strict";
// The page is whole without this: it adds the closer look at one token, by pointer, touch or keyboard.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const panel = document.getElementById("panel");
  const TEXT = 0, ID = 1, KIND = 2, LOGPROB = 3, RANK = 4, ENTROPY = 5, TOP = 6, CHOICE = 7, LENS = 8, SECONDS = 9, SAID = 10;
  const BAND = 48, LEVELS = [9000, 5000, 2500, 1000, 300, 100, 10]; // of a heatmap: tokens side by side; ten-thousandths
  let pinned = null; // [branch, token, layer or null]

  panel.replaceChildren();
  const spoken = document.getElementById("spoken"); // what a screen reader says of a token that was chosen
  const make = (name, text, ...classes) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    made.classList.add(...classes);
    return made;
  };
  const tokenAt = (b, i) => data.branches[b].tokens[i];
  const text = (number) => data.texts[number];
  const label = (number) => {
    const raw = text(number);
    if (raw === "") return "\u2205";
    const shown = raw.replace(/^ +| +$/g, (spaces) => "\u00b7".repeat(spaces.length));
    return (/^\p{M}/u.test(shown) ? "\u25cc" : "") + shown;
  };
  const percent = (p) => p >= 0.9995 ? (p === 1 ? "100%" : ">99.9%") : p === 0 ? "0%" : p < 0.0001 ? "<0.01%" : p < 0.01 ? (100 * p).toFixed(2) + "%" : (100 * p).toFixed(1) + "%";
  const chance = (logprob) => logprob === "x" ? 0 : Math.exp(logprob);
  const small = (tenThousandths) => tenThousandths === 0 ? "<0.01%" : percent(tenThousandths / 10000);
  const digits = (value) => value === 0 ? "0" : Math.abs(value) >= 1e300 ? (value < 0 ? "-\u221e" : "\u221e") : Math.abs(value) < 0.001 || Math.abs(value) >= 1e6 ? value.toExponential(2) : String(Number(value.toPrecision(4)));

  function fact(list, name, value) {
    const pair = make("div");
    pair.append(make("dt", name), make("dd", value));
    list.append(pair);
  }

  function facts(token, position) {
    const list = make("dl");
    if (token[LOGPROB] !== null) {
      const p = chance(token[LOGPROB]);
      fact(list, "probability", percent(p));
      fact(list, "log-probability", token[LOGPROB] === "x" ? "-\u221e" : digits(token[LOGPROB]));
      if (token[RANK]) fact(list, "rank", String(token[RANK]));
    }
    if (token[ENTROPY] !== null) fact(list, "entropy", digits(token[ENTROPY]) + " nats");
    fact(list, "position", String(position));
    fact(list, "token id", String(token[ID]));
    fact(list, "how", text(token[KIND]));
    if (token[SECONDS]) fact(list, "time", digits(1000 * token[SECONDS]) + " ms");
    return list;
  }

  function said(token) {
    const part = document.createDocumentFragment();
    if (!token[SAID]) return part;
    const [note, ...flags] = token[SAID];
    for (const flag of flags) part.append(make("span", text(flag), "flag"));
    if (text(note)) part.append(make("p", text(note)));
    return part;
  }

  function alternatives(token) {
    const part = document.createDocumentFragment();
    const top = token[TOP];
    if (!top) return part;
    const drawn = top.some((_, i) => i % 3 === 2 && top[i] !== null);
    part.append(make("h3", drawn ? "most probable: model, and after the stages" : "most probable under the model"));
    const table = make("table");
    for (let i = 0; i < top.length; i += 3) {
      const row = make("tr");
      if (top[i] === token[TEXT]) row.classList.add("is-it");
      const cell = make("td", label(top[i]));
      const p = chance(top[i + 1]);
      const bar = make("div", "", "bar");
      bar.style.width = 100 * p + "%";
      cell.append(bar);
      row.append(cell, make("td", percent(p)));
      if (drawn) {
        const after = top[i + 2] === null ? null : chance(top[i + 2]);
        if (after !== null) {
          const second = make("div", "", "bar", "after");
          second.style.width = 100 * after + "%";
          cell.append(second);
        }
        row.append(make("td", after === null ? "" : top[i + 2] === "x" ? "out" : percent(after)));
      }
      table.append(row);
    }
    part.append(table);
    return part;
  }

  function choice(token) {
    const part = document.createDocumentFragment();
    if (!token[CHOICE]) return part;
    const [noise, score, runnerUp, otherNoise, margin, left, logprob, stages] = token[CHOICE];
    part.append(make("h3", "the choice"));
    const list = make("dl");
    fact(list, "drawn with", percent(chance(logprob)));
    fact(list, "tokens left", left.toLocaleString("en"));
    fact(list, "score", digits(score));
    fact(list, "of it noise", digits(noise));
    fact(list, "runner-up", runnerUp < 0 ? "none" : label(runnerUp));
    fact(list, "margin", margin < 0 ? "\u221e" : digits(margin));
    if (runnerUp >= 0 && otherNoise) fact(list, "its noise", digits(otherNoise));
    part.append(list);
    if (!stages.length) return part;
    part.append(make("h3", "stages"));
    const table = make("table"), head = make("tr");
    for (const name of ["stage", "removed", "mass", "left"]) head.append(make("td", name));
    table.append(head);
    for (let i = 0; i < stages.length; i += 6) {
      const row = make("tr"), moved = stages[i + 4];
      const name = make("td", data.stages[stages[i]]);
      if (moved) name.append(make("small", " " + Math.abs(moved).toLocaleString("en") + " changed" + (moved < 0 ? ", reordered" : "")));
      row.append(name, make("td", stages[i + 1].toLocaleString("en")), make("td", percent(stages[i + 3])), make("td", stages[i + 2].toLocaleString("en")));
      table.append(row);
    }
    part.append(table);
    return part;
  }

  function lens(token, layer) {
    const part = document.createDocumentFragment(), cells = token[LENS];
    if (!cells) return part;
    part.append(make("h3", "layers, the last first"));
    const table = make("table"), head = make("tr");
    for (const name of ["layer", "rank", "p", "its own first"]) head.append(make("td", name));
    table.append(head);
    for (let i = data.layers.length - 1; i >= 0; i--) {
      const row = make("tr"), [rank, p, top, topP] = cells.slice(4 * i, 4 * i + 4);
      if (i === layer) row.classList.add("is-it");
      row.append(make("td", data.layers[i]), make("td", (rank + 1).toLocaleString("en")), make("td", small(p)), make("td", label(top) + " " + small(topP)));
      table.append(row);
    }
    part.append(table);
    return part;
  }

  function show(b, i, layer) {
    const token = tokenAt(b, i), branch = data.branches[b];
    const position = branch.positions ? branch.positions[i] : branch.at + i;
    const keys = make("p", undefined, "keys");
    keys.append(make("kbd", "\u2190"), " ", make("kbd", "\u2192"), " next token, ", make("kbd", "\u2191"), " ", make("kbd", "\u2193"), " line or layer, ", make("kbd", "Home"), " ", make("kbd", "End"));
    const close = make("button", "close", "close");
    close.addEventListener("click", () => { pinned = null; panel.replaceChildren(); });
    panel.replaceChildren(close, make("h2", label(token[TEXT])), said(token), facts(token, position), alternatives(token), choice(token), lens(token, layer), keys);
    panel.scrollTop = 0;
    mark(b, i, layer);
  }

  // A page that moves under a resting pointer is no movement of the pointer. The last place is noted at the end of each
  // event's way up, after those that ask.
  let resting = "";
  const place = (event) => `${event.clientX} ${event.clientY}`;
  const moved = (event) => event.pointerType === "mouse" && place(event) !== resting;
  document.addEventListener("pointermove", (event) => { resting = place(event); });

  // --- where it is: in the text, the curves, the heatmap --------------------------------------------
  const strips = [...document.querySelectorAll(".strip")];
  const spans = strips.map((strip) => [...strip.children]);
  const figures = (name, b) => [...document.querySelectorAll(`figure.${name}[data-b="${b}"]`)];

  function mark(b, i, layer) {
    for (const cursor of document.querySelectorAll(".cursor, .at")) cursor.setAttribute("d", "");
    for (const other of document.querySelectorAll('.strip [aria-selected="true"]')) other.setAttribute("aria-selected", "false");
    spans[b][i].setAttribute("aria-selected", "true");
    for (const figure of figures("curve", b)) figure.querySelector(".cursor").setAttribute("d", `M${i + 0.5} 0V100`);
    for (const figure of figures("lens", b)) {
      const svg = [...figure.querySelectorAll("svg")].reverse().find((each) => Number(each.dataset.start) <= i);
      if (!svg) continue;
      const x = i - Number(svg.dataset.start), row = layer === null ? 0 : data.layers.length - 1 - layer;
      const height = layer === null ? data.layers.length : 1;
      svg.querySelector(".at").setAttribute("d", `M${x} ${row}h1v${height}h-1z`);
      readout(figure, b, i, layer);
    }
  }

  function readout(figure, b, i, layer) {
    const cells = tokenAt(b, i)[LENS], line = figure.querySelector(".readout");
    if (!line) return;
    if (!cells || layer === null) { line.textContent = ""; return; }
    const [rank, p, top, topP] = cells.slice(4 * layer, 4 * layer + 4);
    line.textContent = `${data.layers[layer]}: ${label(tokenAt(b, i)[TEXT])} is number ${(rank + 1).toLocaleString("en")} with ${small(p)}; its own first is ${label(top)} with ${small(topP)}`;
  }

  function pin(b, i, layer = null, focus = false) {
    pinned = [b, i, layer];
    for (const [which, list] of spans.entries()) {
      const inside = which === b ? i : list.findIndex((span) => span.tabIndex === 0);
      list.forEach((span, at) => { span.tabIndex = at === Math.max(0, inside) ? 0 : -1; });
    }
    show(b, i, layer);
    const token = tokenAt(b, i), p = token[LOGPROB];
    spoken.textContent = label(token[TEXT]) + (p === null ? "" : `, ${percent(chance(p))}, rank ${token[RANK]}`);
    if (focus) spans[b][i].focus();
    try { history.replaceState(null, "", `#${b}.${i}`); } catch { /* a page without an address */ }
  }

  // --- the text -------------------------------------------------------------------------------------
  function lineStep(list, i, direction) {
    const from = list[i].getBoundingClientRect(), x = from.left + from.width / 2;
    let best = i, line = null, gap = Infinity;
    for (let j = i + direction; j >= 0 && j < list.length; j += direction) {
      const box = list[j].getBoundingClientRect();
      if (direction * (box.top - from.top) < 4) continue;
      if (line !== null && Math.abs(box.top - line) > 4) break;
      line = box.top;
      const off = Math.abs(box.left + box.width / 2 - x);
      if (off < gap) { gap = off; best = j; }
    }
    return best;
  }

  strips.forEach((strip, b) => {
    const list = spans[b], index = new Map(list.map((span, i) => [span, i]));
    strip.setAttribute("role", "listbox");
    strip.setAttribute("aria-label", "tokens; arrow keys move between them");
    strip.setAttribute("aria-orientation", "horizontal");
    list.forEach((span, i) => { span.setAttribute("role", "option"); span.setAttribute("aria-selected", "false"); span.tabIndex = i ? -1 : 0; });
    strip.addEventListener("click", (event) => { if (index.has(event.target)) pin(b, index.get(event.target), null, true); });
    strip.addEventListener("focusin", (event) => {
      const i = index.get(event.target);
      if (i !== undefined && !(pinned && pinned[0] === b && pinned[1] === i)) pin(b, i);
    });
    strip.addEventListener("pointerover", (event) => {
      if (index.has(event.target) && moved(event)) show(b, index.get(event.target), null);
    });
    strip.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse" && pinned) show(...pinned); });
    strip.addEventListener("keydown", (event) => {
      const i = index.get(event.target);
      if (i === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
      const goal = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: list.length - 1 }[event.key]
        ?? (event.key === "ArrowDown" ? lineStep(list, i, 1) : event.key === "ArrowUp" ? lineStep(list, i, -1) : null);
      if (goal === null) return;
      event.preventDefault();
      pin(b, Math.min(list.length - 1, Math.max(0, goal)), null, true);
    });
  });

  // --- curves and heatmap: the same tokens along x ---------------------------------------------------
  function reachable(target, b, name, at, layered) {
    target.tabIndex = 0;
    target.setAttribute("role", "group");
    target.setAttribute("aria-label", name);
    const last = data.branches[b].tokens.length - 1;
    const hover = (event) => { const found = moved(event) && at(event); if (found) show(b, ...found); };
    target.addEventListener("pointermove", hover);
    target.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse" && pinned) show(...pinned); });
    target.addEventListener("click", (event) => { const found = at(event); if (found) pin(b, ...found); });
    target.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey) return;
      const [i, layer] = pinned && pinned[0] === b ? [pinned[1], pinned[2]] : [0, null];
      const top = data.layers.length - 1, here = layer ?? top;
      const goal = {
        ArrowRight: [i + 1, layer], ArrowLeft: [i - 1, layer], Home: [0, layer], End: [last, layer],
        ...(layered ? { ArrowUp: [i, layer === null ? top : Math.min(top, here + 1)], ArrowDown: [i, Math.max(0, layer === null ? top : here - 1)] } : {}),
      }[event.key];
      if (!goal) return;
      event.preventDefault();
      pin(b, Math.min(last, Math.max(0, goal[0])), goal[1]);
      const mark = layered && target.querySelector('.at:not([d=""])');
      if (mark) mark.scrollIntoView({ block: "nearest", inline: "nearest" });
    });
  }

  for (const figure of document.querySelectorAll("figure.curve")) {
    const b = Number(figure.dataset.b), svg = figure.querySelector("svg"), count = data.branches[b].tokens.length;
    reachable(figure.querySelector(".plot"), b, "curves; arrow keys move between tokens", (event) => {
      const box = svg.getBoundingClientRect(), i = Math.floor((event.clientX - box.left) / box.width * count);
      return i >= 0 && i < count ? [i, null] : null;
    }, false);
  }

  // Runs of cells of one level are a piece of one path, as the page has them for ranks.
  function paint(figure, b, byProbability) {
    for (const svg of figure.querySelectorAll("svg")) {
      const cells = svg.querySelector(".cells"), start = Number(svg.dataset.start), layers = data.layers.length;
      if (!cells.byRank) cells.byRank = [...cells.children];
      if (!byProbability) { cells.replaceChildren(...cells.byRank); continue; }
      const pieces = LEVELS.map(() => "").concat("");
      const count = Math.min(BAND, data.branches[b].tokens.length - start);
      const level = (x, layer) => {
        const lens = x < count ? tokenAt(b, start + x)[LENS] : 0;
        return lens ? LEVELS.findIndex((bound) => lens[4 * layer + 1] >= bound) : null;
      };
      for (let layer = 0; layer < layers; layer++) {
        for (let x = 0; x < count;) {
          const from = x, found = level(x, layer);
          while (x < count && level(x, layer) === found) x++;
          if (found !== null) pieces[found < 0 ? LEVELS.length : found] += `M${from} ${layers - 1 - layer}h${x - from}`;
        }
      }
      cells.replaceChildren(...pieces.map((d, number) => {
        const path = document.createElementNS(cells.namespaceURI, "path");
        path.setAttribute("class", "h" + number);
        path.setAttribute("d", d);
        return path;
      }));
    }
  }

  for (const figure of document.querySelectorAll("figure.lens")) {
    const b = Number(figure.dataset.b), bands = figure.querySelector(".bands"), layers = data.layers.length;
    const select = make("select", undefined, "choice");
    for (const [value, name] of [["by-rank", "coloured by the token's rank"], ["by-p", "coloured by its probability"]]) {
      const option = make("option", name);
      option.value = value;
      select.append(option);
    }
    select.setAttribute("aria-label", "what the colours show");
    select.addEventListener("change", () => {
      figure.classList.remove("by-rank", "by-p");
      figure.classList.add(select.value);
      paint(figure, b, select.value === "by-p");
    });
    figure.querySelector("figcaption").before(select);
    const line = make("div", "", "readout");
    line.setAttribute("aria-live", "polite");
    figure.append(line);
    reachable(bands, b, "layers by tokens; arrow keys move between cells", (event) => {
      const svg = event.target.closest("svg");
      if (!svg) return null;
      const box = svg.getBoundingClientRect(), view = svg.viewBox.baseVal, scale = view.width / box.width;
      const i = Number(svg.dataset.start) + Math.floor((event.clientX - box.left) * scale / 14);
      const row = Math.floor((event.clientY - box.top) * scale / 11);
      if (i >= data.branches[b].tokens.length || !tokenAt(b, i)[LENS]) return null;
      return [i, row >= 0 && row < layers ? layers - 1 - row : null];
    }, true);
  }

  // --- paper, and a link to one token ------------------------------------------------------------------
  let opened = [];
  addEventListener("beforeprint", () => { opened = [...document.querySelectorAll("details:not([open])")]; for (const each of opened) each.open = true; });
  addEventListener("afterprint", () => { for (const each of opened) each.open = false; });
  const named = /^#(\d+)\.(\d+)$/.exec(location.hash);
  const b = named && Number(named[1]) < spans.length ? Number(named[1]) : 0;
  const i = named ? Number(named[2]) : -1;
  if (spans[b] && spans[b][i]) pin(b, i, null, true);
  else {
    const first = spans[0] ? data.branches[0].tokens.findIndex((token) => token[CHOICE]) : -1;
    if (first >= 0 && matchMedia("(min-width: 64.01rem)").matches) { pinned = [0, first, null]; show(0, first, null); }
  }
})();
