// The pages work without this script. It adds timings, autosave, keys and the blur's memory.
"use strict";
(() => {
  const form = document.getElementById("page");
  const shown = Date.now();
  const seen = { first: null, revealed: null, changes: 0, losses: 0, hidden: 0, since: null };
  const coarse = matchMedia("(pointer: coarse)").matches;
  const memory = { get: (k) => { try { return sessionStorage.getItem(k); } catch { return null; } },
                   set: (k, v) => { try { sessionStorage.setItem(k, v); } catch { /* private window */ } } };

  // Where a screen reader begins: at what is wrong, otherwise at the content.
  (document.getElementById("faults") || document.getElementById("main"))?.focus({ preventScroll: true });

  // Focus losses
  const left = () => { if (seen.since === null) { seen.since = Date.now(); seen.losses += 1; } };
  const back = () => { if (seen.since !== null) { seen.hidden += Date.now() - seen.since; seen.since = null; } };
  document.addEventListener("visibilitychange", () => (document.hidden ? left() : back()));
  addEventListener("blur", left);
  addEventListener("focus", back);

  const field = (name) => form?.querySelector(`input[type=hidden][name="${name}"]`);
  const timing = () => {
    back();
    return JSON.stringify({
      client_shown: shown, client_submitted: Date.now(), first_click_ms: seen.first, revealed_ms: seen.revealed,
      changes: seen.changes, focus_losses: seen.losses, hidden_ms: seen.hidden,
      viewport: `${innerWidth}x${innerHeight}`, pointer: coarse ? "coarse" : "fine",
    });
  };
  if (form && field("viewport")) {
    field("viewport").value = `${innerWidth}x${innerHeight}`;
    field("device").value = !coarse ? "desktop" : Math.min(screen.width, screen.height) < 600 ? "phone" : "tablet";
    field("language").value = (navigator.language || "").slice(0, 35);
  }

  // Autosave
  let timer = null;
  const saved = document.getElementById("saved");
  const answers = () => {
    const fields = {};
    for (const [name, value] of new FormData(form)) {
      if (/^[amdcf]\./.test(name) && value !== "") (fields[name] ||= []).push(value);
    }
    return fields;
  };
  const save = async () => {
    try {
      const reply = await fetch("/draft", {
        method: "POST", keepalive: true, headers: { "Content-Type": "application/json", "X-CSRF": field("csrf").value },
        body: JSON.stringify({ visit: field("visit").value, fields: answers() }),
      });
      if (saved) saved.textContent = reply.ok ? "Saved" : "";
    } catch { if (saved) saved.textContent = "Not saved: no connection"; }
  };
  const changed = (event) => {
    if (event.target.type === "hidden" || event.target.classList.contains("unveil")) return;
    if (seen.first === null) seen.first = Date.now() - shown;
    if (event.type === "change") seen.changes += 1;
    alone(event.target);
    if (form.hasAttribute("data-autosave")) { clearTimeout(timer); timer = setTimeout(save, 350); }
  };
  // "None" and "don't know" exclude the other choices.
  const alone = (box) => {
    if (box.type !== "checkbox" || !box.checked) return;
    for (const other of form.querySelectorAll(`input[name="${box.name}"]`)) {
      if (other !== box && (box.hasAttribute("data-alone") || other.hasAttribute("data-alone"))) other.checked = false;
    }
  };
  form?.addEventListener("change", changed);
  form?.addEventListener("input", (event) => { if (event.target.matches(".text")) changed(event); });
  form?.addEventListener("submit", (event) => {
    if (form.dataset.sent) { event.preventDefault(); return; }
    form.dataset.sent = "yes";
    clearTimeout(timer);
    if (field("timing")) field("timing").value = timing();
    for (const button of form.querySelectorAll("button")) button.setAttribute("aria-disabled", "true");
  });
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

  // Blur
  const unblur = document.getElementById("unblur");
  const veils = [...document.querySelectorAll(".unveil")];
  const veil = (box) => {
    box.parentElement.querySelector(".content").setAttribute("aria-hidden", String(!box.checked));
    if (box.checked && seen.revealed === null) seen.revealed = Date.now() - shown;
  };
  if (unblur) {
    unblur.checked = memory.get("unblur") === "yes";
    unblur.addEventListener("change", () => {
      memory.set("unblur", unblur.checked ? "yes" : "no");
      for (const box of veils) { box.checked = unblur.checked; veil(box); }
    });
  }
  for (const box of veils) {
    box.checked = Boolean(unblur?.checked);
    veil(box);
    box.addEventListener("change", () => veil(box));
  }

  // Keys: numbers choose, Enter goes on. They can be switched off.
  const keys = document.getElementById("keys");
  if (keys) {
    keys.checked = memory.get("keys") !== "no";
    keys.addEventListener("change", () => memory.set("keys", keys.checked ? "yes" : "no"));
  }
  addEventListener("keydown", (event) => {
    if (!form?.hasAttribute("data-keys") || !keys?.checked || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.target.matches(".text, button, a, summary")) return;
    if (event.key === "Enter") { event.preventDefault(); document.getElementById("next").click(); return; }
    const hint = [...form.querySelectorAll("kbd")].find((kbd) => kbd.textContent === event.key);
    if (hint) { event.preventDefault(); hint.closest("label").querySelector("input").click(); }
    else if (event.key === "s" && veils.length) { veils[0].click(); }
  });

  // The completion code
  const copy = document.getElementById("copy");
  if (copy && navigator.clipboard) {
    copy.hidden = false;
    copy.addEventListener("click", async () => {
      await navigator.clipboard.writeText(document.getElementById("code").textContent);
      copy.textContent = "Copied";
    });
  }

  // Live progress
  if (document.querySelector("[data-live]")) {
    setInterval(async () => {
      const reply = await fetch("/researcher");
      if (!reply.ok) return;
      const fresh = new DOMParser().parseFromString(await reply.text(), "text/html").getElementById("live");
      if (fresh) document.getElementById("live").replaceWith(fresh);
    }, 5000);
  }
})();
