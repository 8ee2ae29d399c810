// Draws the moments of a long clip. props.value is an event of the server with [start, end, label, score] of each segment.
const words = props.words;
const find = (selector) => element.querySelector(selector);
const [section, said, lanes, chips, drew, over] = [".moments", ".said", ".lanes", ".chips", ".drew", ".over"].map(find);
const filled = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);
const MAX_CHIPS = 60;
let run = ""; // whose moments may be shown
let shown = null;
let asked = 0;
let at = 0;

const across = (time) => `${(100 * time) / shown.end}%`;

function blocks(rows) {
    return rows.map(([start, end, label, score]) => {
        const block = made("div", colour(label), label ?? "");
        block.style.left = across(start);
        block.style.width = across(end - start);
        block.style.setProperty("--sure", 0.35 + 0.65 * score);
        block.title = `${clock(start, 1)} ${label ?? words.none} ${percent(score)}`;
        return block;
    });
}

function hide() {
    run = "";
    shown = null;
    asked += 1;
    at = 0;
    colourOf.clear();
    section.hidden = true;
    drew.textContent = words.legend;
    find(".look-here").hidden = true;
    over.querySelector("svg").replaceChildren();
    find(".chosen").hidden = true;
    lanes.hidden = drew.hidden = true; // until there is something to click
}

function accept(event) {
    if (!event || !run || event.run !== run) {
        return;
    }
    section.hidden = false;
    const isWorking = event.state === "working";
    find(".stop-moments").hidden = !isWorking;
    find(".progress").hidden = !isWorking;
    if (event.state === "error") {
        said.textContent = event.words;
        return;
    }
    if (!event.planned) {
        said.textContent = words.reading;
        find(".progress").classList.add("unknown");
        return;
    }
    find(".progress").classList.remove("unknown");
    find(".progress").firstElementChild.style.width = `${(100 * event.done) / event.planned}%`;
    const progress = filled(words.progress, event);
    const left = event.left ? `, ${filled(words.left, { seconds: event.left })}` : "";
    const cut = event.cut ? ` ${filled(words.cut, { count: event.cut })}` : "";
    said.textContent = { working: progress + left, stopped: filled(words.stopped, event), broke: filled(words.broke, event) }[event.state] ?? "";
    said.textContent = (said.textContent + cut).trim();
    draw(event);
}

function draw(event) {
    shown = event;
    lanes.hidden = drew.hidden = false;
    find(".alone").replaceChildren(...blocks(event.alone));
    find(".refined").replaceChildren(...blocks(event.refined));
    find(".axis").replaceChildren(...ticksUpTo(event.end, innerWidth < 640 ? 4 : 8));
    chips.replaceChildren(
        ...event.refined.slice(0, MAX_CHIPS).map(([start, end, label, score]) => {
            const chip = made("button", `chip ${colour(label)}`, "");
            chip.type = "button";
            chip.append(made("b", "", clock(start, 1)), made("span", "", label ?? words.none), made("i", "", percent(score)));
            chip.addEventListener("click", () => choose((start + end) / 2, start));
            return chip;
        }),
    );
    lanes.setAttribute("aria-valuemax", event.end.toFixed(1));
    document.dispatchEvent(new CustomEvent("player-captions", { detail: event.refined }));
}

async function choose(time, playFrom = time) {
    at = Math.min(Math.max(time, 0), shown.end);
    lanes.setAttribute("aria-valuenow", at.toFixed(1));
    document.dispatchEvent(new CustomEvent("player-moment", { detail: playFrom }));
    const number = ++asked;
    const reply = await server.drawn({ run, seconds: at }).catch(() => ({}));
    if (number !== asked || reply.run !== run || !shown) {
        return;
    }
    const [start, end] = reply.window;
    const chosen = find(".chosen");
    chosen.hidden = false;
    chosen.style.left = across(start);
    chosen.style.width = across(end - start);
    const middle = (one) => (500 * (one.start + one.end)) / shown.end;
    const from = middle({ start, end });
    const strongest = Math.max(...reply.others.map(({ weight }) => weight), 0.01);
    over.querySelector("svg").replaceChildren(
        ...reply.others.map((other) => {
            const arc = document.createElementNS("http://www.w3.org/2000/svg", "path");
            const to = middle(other);
            arc.setAttribute("d", `M ${from} 0 C ${from} 115, ${to} 115, ${to} 0`);
            arc.style.opacity = 0.25 + (0.75 * other.weight) / strongest;
            arc.style.strokeWidth = `${1 + (4 * other.weight) / strongest}px`;
            return arc;
        }),
    );
    const named = reply.others.map(({ start: when, weight }) => filled(words.other, { time: clock(when, 1), percent: percent(weight) }));
    if (reply.own) {
        named.unshift(filled(words.itself, { percent: percent(reply.own) }));
    }
    const values = { time: clock(start, 1), label: reply.label, others: named.join(", ") };
    drew.textContent = filled(reply.others.length ? words.drew : words.drewNothing, values);
    find(".look-here").hidden = false;
    lanes.setAttribute("aria-valuetext", drew.textContent);
}

lanes.addEventListener("click", (event) => {
    if (shown) {
        const box = find(".lane").getBoundingClientRect();
        choose(((event.clientX - box.left) / box.width) * shown.end);
    }
});
lanes.addEventListener("keydown", (event) => {
    const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 };
    if (shown && event.key in steps) {
        event.preventDefault();
        choose(at + (steps[event.key] * shown.end) / 40);
    }
});
find(".look-here").addEventListener("click", () => document.dispatchEvent(new CustomEvent("look-here", { detail: at })));
find(".stop-moments").addEventListener("click", () => {
    find(".stop-moments").hidden = true;
    server.stop(run).catch(() => {});
});
document.addEventListener("player-time", (event) => {
    if (shown) {
        over.querySelector(".now").style.left = across(Math.min(event.detail, shown.end));
    }
});
document.addEventListener("run-cleared", hide);
document.addEventListener("run-answered", (event) => {
    hide();
    run = event.detail.run;
    accept(props.value); // it may have come first
});
watch("value", () => accept(props.value));
hide();
