"use strict";
(() => {
  const $ = (selector, root = document) => root.querySelector(selector);
  const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
  const data = JSON.parse($("#data").textContent);
  const [KEY, KIND, RANK, WORD, SCORE, LABEL, TIME, AT, SCENES, ORDER] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9];
  const number = (count) => count.toLocaleString("en");

  // What is packed was escaped like the rest of this page. No other script may make HTML.
  const policy = window.trustedTypes?.createPolicy("ci-live-audit", { createHTML: (html) => html });
  async function unpack(packed) {
    const bytes = Uint8Array.from(atob(packed), (sign) => sign.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    const html = await new Response(stream).text();
    const template = document.createElement("template");
    template.innerHTML = policy ? policy.createHTML(html) : html;
    return [...template.content.children];
  }

  // Streams, and the cards of their items as far as they have been made

  const rows = new Map($$("#streams tbody tr").map((row) => [Number(row.dataset.stream), row]));
  const streams = data.streams.map((one) => ({
    ...one, node: document.getElementById(`s${one.id}`), row: rows.get(one.id),
    portions: new Map(), fits: [], shown: data.portion, drawing: 0, stale: false,
  }));
  const byNode = new Map(streams.map((stream) => [stream.node, stream]));

  function fill(stream) {
    stream.list = $(".cards", stream.node);
    if (!stream.list) return;
    const cards = [...stream.list.children];
    stream.portions.set(0, Promise.resolve(cards));
    cards.forEach(prepare);
  }
  const groups = data.groups.map((packed, group) => ({
    packed, streams: streams.filter((stream) => stream.group === group),
  }));
  async function open(stream) {
    const group = groups[stream.group];
    if (!group) return;
    group.opened ??= unpack(group.packed).then((sections) => {
      sections.forEach((section, at) => {
        const { node } = group.streams[at];
        for (const { name, value } of section.attributes) if (name !== "hidden") node.setAttribute(name, value);
        node.replaceChildren(...section.childNodes);
        tellTimes(node);
        fill(group.streams[at]);
      });
    });
    await group.opened;
  }

  async function card(stream, index) {
    const portion = Math.floor(index / data.portion);
    if (!stream.portions.has(portion)) {
      stream.portions.set(portion, unpack(stream.packed[portion - 1]).then((cards) => (cards.forEach(prepare), cards)));
    }
    return (await stream.portions.get(portion))[index % data.portion];
  }

  async function draw(stream) {
    stream.stale = false;
    const drawing = ++stream.drawing;
    await open(stream);
    if (!stream.list) return;
    const cards = await Promise.all(stream.fits.slice(0, stream.shown).map((index) => card(stream, index)));
    if (drawing !== stream.drawing) return;
    cards.forEach((one) => paint(stream, one));
    if (cards.length !== stream.list.children.length || cards.some((one, at) => one !== stream.list.children[at])) {
      stream.list.replaceChildren(...cards);
    }
    const rest = stream.fits.length - cards.length;
    $(".rest", stream.node).hidden = !rest;
    $(".some", stream.node).textContent = `Show ${number(Math.min(rest, data.portion))} more`;
    $(".all", stream.node).textContent = `Show all ${number(stream.fits.length)}`;
    $(".all", stream.node).hidden = rest <= data.portion;
    $(".none", stream.node).hidden = stream.fits.length > 0;
  }

  // Those far below are unpacked and drawn when they come near.
  const near = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      const stream = byNode.get(entry.target);
      if (entry.isIntersecting && stream.stale) draw(stream);
    }
  }, { rootMargin: "800px" });

  // Times and expiry

  const zone = $("#zone");
  const local = Intl.DateTimeFormat().resolvedOptions().timeZone;
  zone.options[0].textContent = local || "your zone";
  let formats;
  function setZone() {
    const base = { timeZone: zone.value || undefined, hourCycle: "h23" };
    const clock = { hour: "2-digit", minute: "2-digit", second: "2-digit" };
    formats = {
      time: new Intl.DateTimeFormat("en-GB", { ...base, ...clock }),
      minute: new Intl.DateTimeFormat("en-GB", { ...base, hour: "2-digit", minute: "2-digit" }),
      day: new Intl.DateTimeFormat("en-GB", { ...base, day: "numeric", month: "short" }),
      both: new Intl.DateTimeFormat("en-GB", { ...base, ...clock, day: "numeric", month: "short", year: "numeric" }),
    };
  }
  function tellTimes(root) {
    for (const one of $$("time", root)) {
      const at = new Date(one.dateTime);
      one.textContent = formats[one.dataset.show].format(at);
      one.title = formats.both.format(at);
    }
    for (const one of $$("[data-at]", root)) {
      const at = formats[one.dataset.show ?? "time"].format(new Date(one.dataset.at));
      if (one.localName === "title") {
        one.dataset.told ??= one.textContent;
        one.textContent = `${at} ${one.dataset.told}`;
      } else one.textContent = at;
    }
  }

  function lose(figure, text) {
    const media = $(".media", figure);
    if (!media) return;
    media.remove();
    $(".gone", figure).textContent = text;
    $(".gone", figure).hidden = false;
  }
  const clock = (iso) => formats.time.format(new Date(iso));
  const tooLate = (figure) => figure.dataset.until && Date.parse(figure.dataset.until) <= Date.now();
  function expire(figure) {
    if (!tooLate(figure)) return;
    const caption = $(".until", figure);
    if (caption) caption.firstChild.textContent = "Link expired ";
    const img = $("img", figure);
    const audio = $("audio", figure);
    if (img?.complete && img.naturalWidth) $("a.media", figure).removeAttribute("href"); // it is here to stay
    else if (!audio || audio.paused) lose(figure, `The link expired at ${clock(figure.dataset.until)}. Query the job again and make a new report.`);
  }
  document.addEventListener("error", (event) => {
    const figure = event.target.closest?.("figure");
    if (!figure) return;
    if (tooLate(figure)) expire(figure);
    else lose(figure, event.target.localName === "img" ? "The picture could not be loaded." : "The sound could not be loaded.");
  }, true);
  document.addEventListener("load", (event) => {
    if (event.target.localName === "img") frame(event.target);
  }, true);
  function frame(img) {
    const frames = img.nextElementSibling;
    const [width, height] = [img.naturalWidth, img.naturalHeight];
    if (!width || !frames) return;
    frames.setAttribute("viewBox", `0 0 ${width} ${height}`);
    $$("text", frames).forEach((one) => one.setAttribute("font-size", Math.max(width, height) / 22));
    frames.classList.add("placed");
    img.classList.add("loaded");
  }
  function prepare(item) {
    tellTimes(item);
    $(".decide", item).hidden = false;
    $$("figure", item).forEach(expire);
    const img = $("img", item);
    if (img?.complete && img.hasAttribute("src") && img.currentSrc) {
      if (img.naturalWidth) frame(img);
      else lose(img.closest("figure"), "The picture could not be loaded.");
    }
  }
  setInterval(() => $$("figure").forEach(expire), 15000);

  // Marks, kept by the browser for each job where it keeps anything for pages from a file

  const marks = new Map(streams.map((stream) => [stream.job, {}]));
  const place = (job) => `ci-live-audit:marks:${job}`;
  let kept = true;
  function recall(job) {
    try {
      return JSON.parse(localStorage.getItem(place(job))) ?? {};
    } catch {
      return {};
    }
  }
  try {
    localStorage.setItem("ci-live-audit", "1");
    localStorage.removeItem("ci-live-audit");
    for (const job of marks.keys()) marks.set(job, recall(job));
  } catch {
    kept = false;
  }
  $("#kept").textContent = kept
    ? "Marks are kept in this browser, for each job, until you forget them. Export them to hand them on."
    : "This browser keeps nothing for this page: marks are lost when it is closed. Export them before.";
  let exported = true;
  function keep(job) {
    exported = false;
    if (!kept) return;
    try {
      localStorage.setItem(place(job), JSON.stringify(marks.get(job)));
    } catch {
      kept = false;
    }
  }
  window.addEventListener("beforeunload", (event) => {
    if (!kept && !exported) event.preventDefault();
  });
  const markOf = (stream, index) => {
    const of = marks.get(stream.job);
    const key = stream.items[index][KEY];
    return Object.hasOwn(of, key) && ["right", "wrong"].includes(of[key]?.mark) ? of[key] : undefined;
  };

  const done = [];
  function setMark(stream, index, mark) {
    const of = { ...(kept ? recall(stream.job) : {}), ...marks.get(stream.job) };
    const key = stream.items[index][KEY];
    stream.marked -= isMarked(stream, index);
    if (mark) of[key] = mark;
    else delete of[key];
    marks.set(stream.job, of);
    stream.marked += isMarked(stream, index);
    keep(stream.job);
    const node = document.getElementById(`s${stream.id}i${index}`);
    if (node) paint(stream, node.parentElement);
    tellProgress();
  }
  function mark(stream, index, value) {
    const before = markOf(stream, index);
    if (before?.mark === value) return;
    done.push({ stream, index, before });
    setMark(stream, index, value && { mark: value, at: new Date().toISOString() });
  }
  async function undo() {
    const last = done.pop();
    if (!last) return;
    setMark(last.stream, last.index, last.before);
    await select(last.stream, last.index);
  }
  function paint(stream, item) {
    const node = item.firstElementChild;
    const index = Number(node.id.split("i")[1]);
    const value = markOf(stream, index)?.mark;
    if (value) node.dataset.marked = value;
    else delete node.dataset.marked;
    $$("[data-mark]", node).forEach((one) => one.setAttribute("aria-pressed", one.dataset.mark === value));
    node.classList.toggle("current", current?.stream === stream && current.index === index);
  }
  const isMarked = (stream, index) => Boolean(markOf(stream, index));
  function countMarks(stream) {
    stream.marked = stream.items.filter((_, index) => isMarked(stream, index)).length;
  }
  function tellProgress() {
    let [all, marked] = [0, 0];
    for (const stream of streams) {
      all += stream.items.length;
      marked += stream.marked;
      const cell = stream.row.lastElementChild;
      if (cell.dataset.value === String(stream.marked)) continue; // thousands of rows stay as they are
      cell.dataset.value = stream.marked;
      cell.textContent = stream.items.length ? `${number(stream.marked)} of ${number(stream.items.length)}` : "";
    }
    $("#done").textContent = `${number(marked)} of ${number(all)} marked`;
    $("#undo").disabled = !done.length;
  }
  function tellPlace() {
    const { stream, index } = current;
    $("#where").textContent = `${stream.name}: ${number(stream.fits.indexOf(index) + 1)} of ${number(stream.fits.length)} ·`;
  }

  function exportMarks() {
    const found = streams.flatMap((stream) => stream.items.flatMap((item, index) => {
      const of = markOf(stream, index);
      if (!of) return [];
      return [{
        job_id: stream.job, key: item[KEY], kind: item[KIND], time: item[TIME], at: item[AT], label: item[LABEL],
        verdict: item[WORD], score: item[SCORE], mark: of.mark, marked_at: of.at,
      }];
    }));
    const record = { schema: 1, kind: "marks", report: document.title, exported_at: new Date().toISOString(), marks: found };
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([JSON.stringify(record, null, 2) + "\n"], { type: "application/json" }));
    link.download = "marks.json";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    exported = true;
  }

  // Filters

  const filters = $(".filters");
  const chosen = (id) => $(`#${id}`).value;
  function apply() {
    const [verdict, scene, least, marked] = [chosen("verdict"), chosen("scene"), chosen("score"), chosen("marked")];
    const name = chosen("name").trim().toLowerCase();
    const narrowed = verdict || scene || least || marked;
    let [count, open] = [0, 0];
    for (const stream of streams) {
      const named = !name || [stream.name, stream.job].some((one) => one.toLowerCase().includes(name));
      stream.fits = !named ? [] : [...stream.items.keys()].filter((index) => {
        const item = stream.items[index];
        return (!verdict || item[RANK] === Number(verdict))
          && (!scene || item[SCENES].includes(Number(scene)))
          && (!least || (item[SCORE] !== null && item[SCORE] >= Number(least)))
          && (!marked || (markOf(stream, index)?.mark ?? "none") === marked);
      });
      if (chosen("order") === "time") stream.fits.sort((a, b) => stream.items[a][ORDER] - stream.items[b][ORDER]);
      stream.shown = data.portion;
      if (current?.stream === stream) showTo(stream, current.index);
      const hide = !named || (narrowed && !stream.fits.length);
      stream.node.hidden = stream.row.hidden = Boolean(hide);
      open += !hide;
      count += stream.fits.length;
      stream.stale = true;
      near.unobserve(stream.node);
      if (!hide) near.observe(stream.node);
    }
    $("#empty")?.toggleAttribute("hidden", open > 0 || !streams.length);
    $("#count").textContent = `${number(count)} flagged in ${number(open)} ${open === 1 ? "stream" : "streams"}`;
  }
  filters.addEventListener("input", apply);
  filters.addEventListener("submit", (event) => event.preventDefault());
  filters.addEventListener("reset", () => setTimeout(apply));

  // Going from one to the next

  let current;
  function showTo(stream, index) {
    const at = stream.fits.indexOf(index);
    if (at >= stream.shown) stream.shown = Math.ceil((at + 1) / data.portion) * data.portion;
  }
  const fitting = () => streams.filter((stream) => !stream.node.hidden && stream.fits.length);
  async function select(stream, index, { focus = true } = {}) {
    if (!stream.fits.includes(index)) {
      filters.reset();
      apply();
    }
    const before = current;
    current = { stream, index };
    tellPlace();
    showTo(stream, index);
    await draw(stream);
    for (const one of [before, current]) {
      const node = one && document.getElementById(`s${one.stream.id}i${one.index}`);
      if (node) paint(one.stream, node.parentElement);
    }
    const node = document.getElementById(`s${stream.id}i${index}`);
    if (!focus || !node || current.stream !== stream || current.index !== index) return;
    node.focus({ preventScroll: true });
    node.scrollIntoView({ block: "center" });
  }
  async function go(step) {
    const open = fitting();
    if (!open.length) return;
    const at = current ? open.indexOf(current.stream) : -1;
    if (at < 0) return select(open[0], open[0].fits[0]);
    const next = open[at].fits.indexOf(current.index) + step;
    if (next >= 0 && next < open[at].fits.length) return select(open[at], open[at].fits[next]);
    const other = open[at + step];
    if (other) return select(other, other.fits[step > 0 ? 0 : other.fits.length - 1]);
  }
  async function goStream(step) {
    const open = fitting();
    const at = current ? open.indexOf(current.stream) : -1;
    const next = open[at < 0 ? 0 : at + step];
    if (next) return select(next, next.fits[0]);
  }
  async function decide(value) {
    if (!current) return go(1);
    mark(current.stream, current.index, value);
    return go(1);
  }
  const here = () => current && document.getElementById(`s${current.stream.id}i${current.index}`);

  // Keys and clicks

  const shortcuts = $("#shortcuts");
  const about = $("#about");
  const keys = {
    j: () => go(1), n: () => go(1), k: () => go(-1), p: () => go(-1), J: () => goStream(1), K: () => goStream(-1),
    r: () => decide("right"), w: () => decide("wrong"), u: undo, e: exportMarks,
    o: () => $("a.media", here() ?? document.createElement("p"))?.click(),
    s: () => {
      const audio = here() && $("audio", here());
      if (audio) audio.paused ? audio.play().catch(() => {}) : audio.pause();
    },
    b: () => document.documentElement.classList.toggle("blur"),
    f: () => $("#verdict").focus(),
    "/": () => $("#name").focus(),
    "?": () => about.showModal(),
  };
  let busy = Promise.resolve(); // keys that come fast are done one after the other
  document.addEventListener("keydown", (event) => {
    const { target, key } = event;
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || about.open) return;
    if (target.closest("input, select, textarea")) {
      if (key === "Escape") (here() ?? target).focus(), here() || target.blur();
      return;
    }
    if (!shortcuts.checked) return;
    const known = Object.hasOwn(keys, key) ? key : key.toLowerCase();
    if (!Object.hasOwn(keys, known)) return;
    event.preventDefault();
    busy = busy.then(keys[known]).catch(console.error);
  });
  document.addEventListener("click", (event) => {
    const target = event.target;
    const link = target.closest('a[href^="#s"]');
    const match = link && /^#s(\d+)i(\d+)$/.exec(link.getAttribute("href"));
    if (match) {
      const stream = streams.find((one) => one.id === Number(match[1]));
      event.preventDefault();
      busy = busy.then(() => select(stream, Number(match[2]))).catch(console.error);
      return;
    }
    const section = target.closest(".stream");
    const stream = section && byNode.get(section);
    if (!stream) return;
    if (target.matches(".some, .all")) {
      stream.shown = target.matches(".all") ? stream.fits.length : stream.shown + data.portion;
      draw(stream);
    }
    const button = target.closest("[data-mark]");
    if (button) {
      const index = Number(button.closest(".card").id.split("i")[1]);
      mark(stream, index, button.getAttribute("aria-pressed") === "true" ? undefined : button.dataset.mark);
    }
  });
  document.addEventListener("focusin", (event) => {
    const node = event.target.closest(".card");
    if (!node) return;
    const stream = byNode.get(node.closest(".stream"));
    const before = here();
    current = { stream, index: Number(node.id.split("i")[1]) };
    if (before && before !== node) before.classList.remove("current");
    node.classList.add("current");
    tellPlace();
  });
  $("#undo").addEventListener("click", undo);
  $("#export").addEventListener("click", exportMarks);
  $("#close").addEventListener("click", () => about.close());
  $("#forget").addEventListener("click", () => {
    if (!confirm("Forget the marks of all streams in this report?")) return;
    done.length = 0;
    for (const stream of streams) {
      marks.set(stream.job, {});
      try {
        localStorage.removeItem(place(stream.job));
      } catch {
        kept = false;
      }
      countMarks(stream);
      if (stream.list) [...stream.list.children].forEach((one) => paint(stream, one));
    }
    tellProgress();
  });
  zone.addEventListener("change", () => {
    setZone();
    tellTimes(document);
    for (const stream of streams) {
      for (const portion of stream.portions.values()) portion.then((cards) => cards.forEach(tellTimes));
    }
  });

  // Paper shows what the screen has drawn, and says so

  window.addEventListener("beforeprint", () => {
    const open = streams.filter((stream) => !stream.node.hidden);
    const drawn = open.filter((stream) => stream.node.firstChild);
    const cards = drawn.reduce((sum, stream) => sum + (stream.list?.children.length ?? 0), 0);
    const all = open.reduce((sum, stream) => sum + stream.fits.length, 0);
    $("#unprinted").hidden = drawn.length === open.length && cards === all;
    $("#unprinted").textContent = `On this paper are ${number(cards)} of ${number(all)} findings in `
      + `${number(drawn.length)} of ${number(open.length)} streams. To print the others, filter, or scroll to them and show them all.`;
  });

  // The table can be sorted

  $$("#streams thead th").forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const numbers = head.classList.contains("number") || column === 1 || column === 2;
      const falling = head.getAttribute("aria-sort") ? head.getAttribute("aria-sort") === "ascending" : numbers;
      $$("#streams thead th").forEach((one) => one.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      const value = (row) => (numbers ? Number(row.cells[column].dataset.value) : row.cells[column].textContent);
      const compare = numbers ? (a, b) => a - b : (a, b) => a.localeCompare(b);
      const sorted = [...rows.values()].sort((a, b) => compare(value(a), value(b)) * (falling ? -1 : 1));
      $("#streams tbody").append(...sorted);
    });
  });

  // Begin

  document.documentElement.classList.add("js");
  setZone();
  tellTimes(document);
  $$(".needs-js").forEach((one) => one.hidden = false);
  streams.filter((stream) => stream.group === null).forEach(fill);
  streams.forEach(countMarks);
  apply();
  tellProgress();
  const linked = /^#s(\d+)i(\d+)$/.exec(location.hash);
  const stream = linked && streams.find((one) => one.id === Number(linked[1]));
  if (stream?.items[Number(linked[2])]) select(stream, Number(linked[2]));
})();
