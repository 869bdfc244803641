"use strict";

(() => {
  const EVERY = 2000; // ms between two polls
  const PATIENCE = 8000; // ms for one answer
  const TRIES = 5; // questions in a row, to reach the process that is shown: each may be answered by another one
  const GONE = 10; // answers of others, for each process there is, after which one is taken for gone
  const CHANGES = 8; // circuit changes that are listed
  const MARKS = { closed: "✓", open: "✕", "half-open": "◐", "forced open": "✕", "forced closed": "✓" };

  const heard = new Map(); // process → its last figures, and when they came
  const drawn = new Map(); // place → what was last drawn there
  let chosen = null;
  let timer = null;
  let trouble = "";

  const place = (id) => document.getElementById(id);

  // Everything that is shown goes through here: names and messages become text, never markup.
  function node(name, attributes, ...content) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes || {})) made.setAttribute(key, value);
    made.append(...content.filter((one) => one !== null && one !== ""));
    return made;
  }

  function drawing(name, attributes) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  // Draws only what has changed, so that a selection or the place of a screen reader is not lost every two seconds.
  function draw(id, facts, make) {
    const key = JSON.stringify(facts);
    if (drawn.get(id) === key) return;
    drawn.set(id, key);
    place(id).replaceChildren(...make(facts));
  }

  const NONE = "–";
  const count = (value) => value.toLocaleString("en");
  const plural = (value, one, many) => `${count(value)} ${value === 1 ? one : many}`;
  const percent = (value) => (value === null ? NONE : `${(100 * value).toFixed(1)}%`);
  const seconds = (value) => (value === null ? NONE : `${value.toFixed(value < 100 ? 2 : 0)} s`);
  const money = (value) => (value === null ? NONE : Number(value).toFixed(Math.abs(Number(value)) < 100 ? 4 : 2));
  const clock = (at) => new Date(1000 * at).toLocaleTimeString("en-GB");

  function moment(at, now) {
    const day = new Date(1000 * at);
    const old = now - at > 12 * 3600;
    const text = old ? day.toLocaleDateString("en-GB", { day: "numeric", month: "short" }) : clock(at);
    return node("time", { datetime: day.toISOString(), title: day.toLocaleString("en-GB") }, text);
  }

  function span(length) {
    if (length < 90) return `${Math.round(length)} s`;
    return length < 5400 ? `${Math.round(length / 60)} min` : `${Math.round(length / 3600)} h`;
  }

  // ---- the parts of the page

  function verdict(health) {
    const away = health.targets.filter((one) => tone(one) === "bad").length;
    const others = health.targets.filter((one) => tone(one) === "warn").length;
    const going = health.alerts.filter((one) => one.ended === null).length;
    const parts = [];
    if (away) parts.push(`${plural(away, "model", "models")} not asked`);
    if (others) parts.push(`${plural(others, "model", "models")} on trial`);
    if (going) parts.push(plural(going, "alert", "alerts"));
    const pill = place("verdict");
    pill.className = `pill ${away || going ? "bad" : others ? "warn" : "good"}`;
    const text = parts.length ? `✕ ${parts.join(", ")}` : "✓ healthy";
    if (pill.textContent !== text) pill.textContent = text;
    document.title = parts.length ? `(!) ${parts.join(", ")} · holyroute` : "holyroute";
  }

  function tone(target) {
    if (target.state === "open" || target.state === "forced open" || target.benched !== null) return "bad";
    return target.state === "closed" ? "good" : "warn";
  }

  function totals(health) {
    const calls = health.calls;
    const facts = [
      ["Calls", count(calls.count), `${count(health.cache_hits)} from memory`],
      ["Not answered", percent(calls.error_rate), plural(calls.errors, "call", "calls")],
      ["Time of a call, p95", seconds(calls.latency.p95), `half within ${seconds(calls.latency.p50)}`],
      ["Failovers", count(health.failovers), "to another model"],
      ["Spent, USD", money(health.spent_usd), unknown(health.unknown_cost)],
    ];
    if (health.saved_usd !== null) facts.push(["Saved, USD", money(health.saved_usd), `against ${health.reference}`]);
    if (health.queue !== null) facts.push(["Queue, waiting", count(health.queue.ready), parked(health.queue)]);
    draw("totals", facts, () =>
      facts.map(([name, value, note]) =>
        node("div", null, node("dt", null, name), node("dd", null, value), node("dd", { class: "note" }, note)),
      ),
    );
  }

  const unknown = (number) => (number ? `and ${plural(number, "attempt", "attempts")} unknown` : "by the ledger");
  const parked = (queue) => `${count(queue.leased)} under way, ${count(queue.done)} done, ${count(queue.dead)} dead`;

  function state(target) {
    const benched = target.state === "closed" && target.benched !== null;
    const word = benched ? "left alone" : target.state;
    const mark = benched ? "✕" : MARKS[target.state] || "?";
    const wait = target.retry_in ? `asked again in ${span(Math.ceil(target.retry_in))}` : "";
    const note = [target.benched ?? "", wait].filter(Boolean).join(", ");
    const pill = node("span", { class: `pill ${tone(target)}` }, `${mark} ${word}`);
    return [pill, note && node("span", { class: "note" }, note)];
  }

  function sparkline(values, window) {
    const known = values.filter((value) => value !== null);
    if (!known.length) return null;
    const range = `${seconds(Math.min(...known))} to ${seconds(Math.max(...known))}`;
    const label = `average latency over the last ${span(window)}: ${range}`;
    const picture = drawing("svg", { class: "spark", viewBox: "0 0 136 30", preserveAspectRatio: "xMinYMid", role: "img", "aria-label": label });
    picture.append(drawing("line", { x1: 0, y1: 29, x2: 136, y2: 29 }));
    const top = Math.max(...known, 1e-9) * 1.05;
    const x = (index) => (values.length > 1 ? 3 + (130 * index) / (values.length - 1) : 133);
    const y = (value) => 27 - (24 * value) / top;
    let path = "";
    let lifted = true;
    values.forEach((value, index) => {
      if (value !== null) path += `${lifted ? "M" : "L"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`;
      if (value !== null && lifted && (values[index + 1] ?? null) === null) path += "h0.1"; // a lone point
      lifted = value === null;
    });
    picture.append(drawing("path", { d: path }));
    const last = values.findLastIndex((value) => value !== null);
    picture.append(drawing("circle", { cx: x(last), cy: y(values[last]), r: 2.5 }));
    return picture;
  }

  function cell(label, value, note, alarming) {
    const attributes = { role: "cell", class: alarming ? "number alarming" : "number", "data-label": label };
    return node("td", attributes, value, note && node("span", { class: "note" }, note));
  }

  function commonest(reasons) {
    const [first] = Object.entries(reasons).sort((one, other) => other[1] - one[1]);
    return first ? `${first[0]} ×${count(first[1])}` : "";
  }

  function pace(target) {
    const average = target.recent.latency.average;
    const silent = target.total.answers ? "no answers lately" : "no answers yet";
    return `${target.latency_class}, ${average === null ? silent : `average ${seconds(average)}`}`;
  }

  function row([target, window]) {
    const { recent, total } = target;
    const errors = recent.error_rate;
    return node(
      "tr",
      { role: "row" },
      node(
        "th",
        { role: "rowheader", scope: "row" },
        target.target,
        node("span", { class: "note" }, target.provider === target.host ? target.host : `${target.provider} · ${target.host}`),
      ),
      node("td", { role: "cell", "data-label": "State" }, ...state(target)),
      node(
        "td",
        { role: "cell", "data-label": "Latency" },
        sparkline(target.sparkline, window),
        node("span", { class: "note" }, pace(target)),
      ),
      cell("p95", seconds(recent.latency.p95), `p50 ${seconds(recent.latency.p50)}`),
      cell("Errors", percent(errors), commonest(target.errors_by_reason), errors > 0.05),
      cell("Attempts", count(recent.count), `${count(total.count)} in all`),
      cell("Cost, USD", money(target.cost_usd), plural(target.prompt_tokens + target.completion_tokens, "token", "tokens")),
    );
  }

  function note(at, now, headline, detail) {
    return node("li", null, moment(at, now), node("div", null, ...headline, detail && node("span", { class: "note" }, ` ${detail}`)));
  }

  const empty = (text) => [node("li", { class: "empty" }, text)];

  function alerts(health) {
    draw("alerts", health.alerts, (facts) => {
      if (!facts.length) return empty("None.");
      return facts.map((one) => {
        const going = one.ended === null;
        const pill = node("span", { class: `pill ${going ? "bad" : ""}` }, going ? "! ongoing" : `ended ${clock(one.ended)}`);
        return note(one.began, health.at, [pill, ` ${one.subject}: ${one.message}`], one.rule);
      });
    });
  }

  // In an outage the same happens again and again: the last time stands for all.
  function folded(notes) {
    const found = new Map();
    for (const one of notes) {
      const key = JSON.stringify([one.asked, one.answered_by, one.reason]);
      found.set(key, { ...(found.get(key) ?? one), times: (found.get(key)?.times ?? 0) + 1 });
    }
    return [...found.values()];
  }

  function failovers(health) {
    draw("failovers", folded(health.recent_failovers), (facts) => {
      if (!facts.length) return empty("None.");
      return facts.map((one) => {
        const times = one.times > 1 ? ` ×${one.times}` : "";
        return note(one.at, health.at, [`${one.asked} → ${one.answered_by ?? "nobody"}${times}`], one.reason);
      });
    });
  }

  function changes(health) {
    const all = health.targets.flatMap((target) => target.history.map((change) => ({ target: target.target, ...change })));
    const last = all.sort((one, other) => other.at - one.at).slice(0, CHANGES);
    draw("changes", last, (facts) => {
      if (!facts.length) return empty("None.");
      return facts.map((one) => note(one.at, health.at, [`${one.target}: ${one.before} → ${one.after}`], one.reason));
    });
  }

  // A line may end after a slash or a colon, rather than anywhere.
  const breakable = (text) => text.split(/(?<=[/:])/).flatMap((part) => [part, node("wbr")]);

  function routes(health) {
    draw("asked", health.routes, (facts) => {
      if (!facts.length) return [node("tr", null, node("td", { colspan: 5, class: "note" }, "Nobody asked yet."))];
      return facts.map((one) => {
        const figures = [count(one.total.count), percent(one.total.error_rate), count(one.failovers), count(one.cache_hits)];
        const cells = figures.map((figure) => node("td", { class: "number" }, figure));
        return node("tr", null, node("th", { scope: "row" }, ...breakable(one.route)), ...cells);
      });
    });
  }

  // ---- which process, and how old

  const name = (health) => `${health.pid} ${health.since}`;

  function take(health) {
    for (const last of heard.values()) last.missed += 1;
    heard.set(name(health), { health, at: performance.now(), missed: 0 });
    for (const [process, last] of heard) if (last.missed > GONE * heard.size) heard.delete(process);
    if (!heard.has(chosen)) chosen = name(health);
  }

  function choices() {
    const processes = [...heard.values()].map((one) => one.health).sort((one, other) => one.pid - other.pid);
    place("choice").hidden = processes.length < 2;
    draw("process", processes.map(name), () =>
      processes.map((one) => node("option", { value: name(one) }, String(one.pid))),
    );
    place("process").value = chosen;
  }

  function age() {
    const last = heard.get(chosen);
    if (!last) return;
    const old = Math.floor((performance.now() - last.at) / 1000);
    place("age").textContent = old < 1 ? "updated just now" : `updated ${span(old)} ago`;
  }

  function complain() {
    const last = heard.get(chosen);
    place("trouble").hidden = !trouble;
    const text = trouble && last ? `${trouble} The figures below are those of ${clock(last.health.at)}.` : trouble;
    if (place("trouble").textContent !== text) place("trouble").textContent = text;
    document.body.classList.toggle("stale", Boolean(trouble));
  }

  function show() {
    complain();
    const last = heard.get(chosen);
    if (!last) return;
    const { health } = last;
    choices();
    place("main").hidden = false;
    const own = heard.size < 2 ? `process ${health.pid}, ` : "";
    place("origin").textContent = `${own}counting since ${new Date(1000 * health.since).toLocaleString("en-GB")}`;
    place("span").textContent = `last ${span(health.window)}`;
    verdict(health);
    totals(health);
    draw("targets", health.targets.map((target) => [target, health.window]), (facts) => {
      if (!facts.length) return [node("tr", null, node("td", { colspan: 7, class: "note" }, "Nobody was asked yet."))];
      return facts.map(row);
    });
    alerts(health);
    failovers(health);
    changes(health);
    routes(health);
    age();
  }

  // ---- polling

  // A page that was opened by an address with a password in it may not fetch by addresses that inherit it.
  function api() {
    const address = new URL("api", location.href);
    address.username = address.password = "";
    return address;
  }

  // Returns what is wrong, if anything.
  async function ask() {
    const answer = await fetch(api(), { cache: "no-store", redirect: "manual", signal: AbortSignal.timeout(PATIENCE) });
    const refused = answer.status === 401 || answer.status === 403 || answer.type === "opaqueredirect";
    if (refused) return "Access was refused: reload the page to sign in again.";
    if (!answer.ok) return `The application answered ${answer.status}; asking again every 2 s.`;
    if (answer.headers.get("Content-Type") !== "application/json") return "Something else answered; asking again every 2 s.";
    take(await answer.json());
    return "";
  }

  async function reach() {
    for (let tries = 0; tries < TRIES; tries += 1) {
      const before = heard.get(chosen)?.at;
      const wrong = await ask();
      if (wrong || heard.get(chosen)?.at !== before) return wrong;
    }
    return "";
  }

  async function poll() {
    timer = null;
    trouble = await reach().catch(() => "The connection is lost; trying again every 2 s.");
    if (!document.hidden && timer === null) timer = setTimeout(poll, EVERY);
    show();
  }

  document.addEventListener("visibilitychange", () => {
    clearTimeout(timer);
    timer = null;
    if (!document.hidden) poll();
  });
  place("process").addEventListener("change", (event) => {
    chosen = event.target.value;
    show();
  });
  setInterval(age, 1000);
  poll();
})();
