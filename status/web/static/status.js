// Keeps the page live. Without it everything is there too, as of the moment the page was loaded.
"use strict";
(() => {
  const STALE_MS = 20000, SILENT_MS = 15000;
  const body = document.body;
  const $ = (id) => document.getElementById(id);
  let checked = body.dataset.checked, heard = Date.now(), connected = false, pending = 0, skew = 0;
  let local = false;
  try { local = localStorage.getItem("times") === "local"; } catch { /* storage may be forbidden */ }

  const inLocal = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short" });
  const utc = (at) => `${at.getUTCDate()} ${at.toLocaleString("en", { month: "short", timeZone: "UTC" })} ${at.getUTCFullYear()}, ${at.toISOString().slice(11, 19)} UTC`;
  function times() {
    for (const time of document.querySelectorAll("time[datetime]")) {
      const at = new Date(time.dateTime);
      if (isNaN(at)) continue;
      time.textContent = local ? inLocal.format(at) : utc(at);
      time.title = local ? utc(at) : inLocal.format(at);
    }
  }
  const button = document.createElement("button");
  function label() { button.textContent = local ? "Times: local" : "Times: UTC"; }
  button.type = "button";
  button.addEventListener("click", () => {
    local = !local;
    try { localStorage.setItem("times", local ? "local" : "utc"); } catch { /* as above */ }
    label(); times();
  });
  label();
  $("clock").append(button);
  times();

  // What a day of the bars says, where the pointer or the focus is.
  const tip = document.createElement("div");
  tip.id = "tip"; tip.hidden = true; tip.setAttribute("aria-hidden", "true");
  body.append(tip);
  function show(event) {
    const day = event.target.closest?.("a[data-day]");
    if (!day) return;
    const box = day.getBoundingClientRect();
    day.querySelector("title")?.remove(); // the browser's own would lie over ours; the name is in aria-label
    tip.textContent = day.dataset.day;
    tip.hidden = false;
    const left = Math.min(Math.max(box.left + box.width / 2 - tip.offsetWidth / 2, 8), innerWidth - tip.offsetWidth - 8);
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${box.top + scrollY - tip.offsetHeight - 6}px`;
  }
  const hide = () => { tip.hidden = true; };
  document.addEventListener("mouseover", show);
  document.addEventListener("focusin", show);
  document.addEventListener("mouseout", hide);
  document.addEventListener("focusout", hide);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });

  function offline() {
    const note = $("offline");
    const age = checked ? Date.now() + skew - Date.parse(checked) : 0;
    let words = "";
    if (checked && age > STALE_MS && body.dataset.events === "") words = "This is a snapshot. The live page may know more than it.";
    else if (body.dataset.events && !connected && Date.now() - heard > SILENT_MS) words = "This page has lost its connection, and tries again. What stands below may be out of date.";
    else if (checked && age > STALE_MS && connected) words = "We cannot see the exchange at present. What stands below may be out of date.";
    if (note.dataset.words === words) return;
    note.dataset.words = words;
    note.textContent = words;
    note.hidden = !words;
    if (words) $("live").textContent = words;
  }
  setInterval(offline, 1000);

  async function refetch() {
    pending = 0;
    try {
      const answer = await fetch(location.href, { cache: "no-cache" });
      if (!answer.ok) return;
      const next = new DOMParser().parseFromString(await answer.text(), "text/html");
      const main = $("main"), said = $("headline")?.textContent;
      const focus = document.activeElement, href = focus?.getAttribute?.("href"), id = focus?.id;
      const open = [...main.querySelectorAll("details[open]")].map((d) => d.id);
      const keep = $("offline");
      main.replaceChildren(...next.getElementById("main").childNodes);
      main.querySelector("#offline").replaceWith(keep);
      for (const one of open) $(one)?.setAttribute("open", "");
      if (focus && !focus.isConnected) (id && $(id) || href && [...main.querySelectorAll("a")].find((a) => a.getAttribute("href") === href))?.focus({ preventScroll: true });
      document.title = next.title;
      body.dataset.version = next.body.dataset.version;
      checked = next.body.dataset.checked || checked;
      times(); hide();
      const says = $("headline")?.textContent;
      if (says && says !== said) $("live").textContent = says;
    } catch { /* the next event tries again */ }
  }
  // Many watchers must not all come back at once: the service says over how long to spread them.
  function soon(within) { if (!pending) pending = setTimeout(refetch, Math.random() * Math.min(within || 0, 20000)); }

  function look(told) {
    heard = Date.now();
    if (told.checked_at) {
      checked = told.checked_at;
      if (!told.stale) skew = Math.min(Date.parse(checked) - Date.now(), 0) > -STALE_MS ? 0 : Date.parse(checked) - Date.now();
      const time = $("checked")?.querySelector("time");
      if (time) { time.dateTime = checked; times(); }
    }
    const hero = $("overall");
    if (String(told.version) !== body.dataset.version || (hero && hero.classList.contains("h-unknown") !== (told.stale || !told.checked_at))) soon(0);
    offline();
  }
  if (body.dataset.events) {
    const source = new EventSource(body.dataset.events);
    source.addEventListener("open", () => { connected = true; heard = Date.now(); offline(); });
    source.addEventListener("error", () => { connected = false; });
    source.addEventListener("look", (event) => look(JSON.parse(event.data)));
    source.addEventListener("change", (event) => soon(JSON.parse(event.data).refetch_within_ms));
    source.addEventListener("summary", () => { heard = Date.now(); });
  } else {
    setInterval(refetch, 30000);
  }
})();
