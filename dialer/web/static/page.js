// Replaces what changed in the live part of a page; asks before what cannot be undone.
"use strict";

const live = document.getElementById("live");
const STALE_AFTER_MS = 5000;
const AGAIN_AFTER_MS = 5000;
let heardAt = Date.now();

function parts(root) {
  return [...root.querySelectorAll("[data-part]")];
}

// Parts that are the same keep their elements, so that a click or a selection is not lost.
function show(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html").body;
  const before = parts(live);
  const after = parts(fresh);
  const isAlike = before.length === after.length &&
    before.every((part, i) => part.dataset.part === after[i].dataset.part);
  const focused = document.activeElement?.id;
  if (isAlike) {
    before.forEach((part, i) => {
      if (part.innerHTML !== after[i].innerHTML) part.innerHTML = after[i].innerHTML;
      if (part.className !== after[i].className) part.className = after[i].className;
    });
  } else {
    live.replaceChildren(...fresh.childNodes);
  }
  if (focused && document.activeElement?.id !== focused) {
    document.getElementById(focused)?.focus({ preventScroll: true });
  }
}

function setStale() {
  const isStale = source !== null && Date.now() - heardAt > STALE_AFTER_MS;
  document.body.classList.toggle("stale", isStale);
}

// Some pages have a field for the interval, and buttons to stop and start.
const pace = document.getElementById("pace");
const LEAST_MS = 100;
const MOST_MS = 60000;
let source = null;
let newest = null;
let shownAt = 0;

function everyMs() {
  if (!pace) return 0;
  const typed = Number(document.getElementById("interval").value);
  return Math.min(MOST_MS, Math.max(LEAST_MS, typed || 1000));
}

function showNewest() {
  if (newest === null || Date.now() - shownAt < everyMs()) return;
  shownAt = Date.now();
  show(newest);
  newest = null;
}

function listen() {
  source = new EventSource("/events?page=" + encodeURIComponent(live.dataset.page));
  source.addEventListener("live", (event) => {
    heardAt = Date.now();
    newest = JSON.parse(event.data).html;
    showNewest();
  });
  source.addEventListener("over", () => location.reload());
  source.addEventListener("error", (event) => {
    if (event.target.readyState === EventSource.CLOSED) setTimeout(listenAgain, AGAIN_AFTER_MS);
  });
}

// The browser gives a stream up after one other answer than 200: of a proxy, or without a session.
async function listenAgain() {
  const asked = { method: "HEAD", redirect: "manual", signal: AbortSignal.timeout(AGAIN_AFTER_MS) };
  const answer = await fetch("/", asked).catch(() => null);
  if (source?.readyState !== EventSource.CLOSED) return; // stopped or started in the meantime
  if (answer?.type === "opaqueredirect") location.reload(); // it leads to the sign-in
  else listen();
}

function setRunning(isRunning) {
  source?.close();
  source = null;
  heardAt = Date.now();
  newest = null;
  if (isRunning) listen();
  document.body.classList.toggle("stopped", !isRunning);
}

function setPace(isRunning) {
  setRunning(isRunning);
  document.getElementById("start").disabled = isRunning;
  document.getElementById("stop").disabled = !isRunning;
  document.getElementById(isRunning ? "stop" : "start").focus();
}

if (live) {
  setRunning(true);
  setInterval(setStale, 1000);
}

if (pace) {
  pace.hidden = false;
  document.getElementById("start").addEventListener("click", () => setPace(true));
  document.getElementById("stop").addEventListener("click", () => setPace(false));
  setInterval(showNewest, LEAST_MS);
}

document.addEventListener("submit", (event) => {
  const question = (event.submitter ?? event.target).dataset.ask ?? event.target.dataset.ask;
  if (question && !confirm(question)) event.preventDefault();
});

document.getElementById("language")?.addEventListener("change", (event) => event.target.form.submit());
