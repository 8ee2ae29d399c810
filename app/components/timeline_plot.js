// Draws scores over time. props.value is null, or
// {end, bounds: [N + 1 times], rows: [{label, scores: [N]}], segments: [{start, end, label, score}]}, all times in seconds.
// Hovering says what was seen when; a click or the arrow keys seek the video in #{props.player}, whose time is marked.
const SVG = "http://www.w3.org/2000/svg";
const part = (name) => element.querySelector(`.${name}`);
let seconds = 0;
let captions = null;

const video = () => document.querySelector(`#${props.player} video`);
const across = (time) => `${(100 * time) / props.value.end}%`;
const within = (time) => Math.min(Math.max(time, 0), props.value.end);

function line(bounds, scores) {
    const points = scores.flatMap((score, i) =>
        [bounds[i], bounds[i + 1]].map((time) => `${(1000 * time) / props.value.end},${100 * (1 - score)}`),
    );
    const node = document.createElementNS(SVG, "polyline");
    node.setAttribute("points", points.join(" "));
    return node;
}

function seenAt(time) {
    const { bounds, rows } = props.value;
    const index = bounds.findLastIndex((bound) => bound <= time);
    if (index < 0 || time > bounds[bounds.length - 1]) {
        return [];
    }
    const at = Math.min(index, bounds.length - 2);
    return rows
        .map(({ label, scores }) => ({ label, score: scores[at] }))
        .sort((a, b) => b.score - a.score)
        .slice(0, 3);
}

function inWords(time) {
    const seen = seenAt(time).map(({ label, score }) => `${label} ${percent(score)}`);
    return [clock(time, 1), ...(seen.length ? seen : [props.words.not_yet])];
}

function placeMark(time) {
    seconds = within(time);
    part("mark").style.left = across(seconds);
    const area = part("area");
    area.setAttribute("aria-valuenow", seconds.toFixed(1));
    area.setAttribute("aria-valuetext", inWords(seconds).join(", "));
}

function seek(time) {
    placeMark(time);
    const player = video();
    if (player && player.readyState) {
        player.currentTime = seconds;
    }
}

function showTip(time) {
    const tip = part("tip");
    tip.replaceChildren(...inWords(time).map((words, i) => made(i ? "div" : "b", "", words)));
    const place = across(time);
    tip.style.left = place;
    tip.style.transform = `translateX(-${place})`; // so it stays inside at both ends
    tip.hidden = false;
}

function caption() {
    const player = video();
    if (!player) {
        return;
    }
    captions ??= player.addTextTrack("captions", "Actions");
    captions.mode = "showing";
    for (const cue of [...(captions.cues ?? [])]) {
        captions.removeCue(cue);
    }
    for (const { start, end, label, score } of props.value?.segments ?? []) {
        if (label !== null) {
            captions.addCue(new VTTCue(start, end - 0.001, `${label} ${percent(score)}`)); // the next one begins at the end
        }
    }
}

function listed({ start, label, score }, rows) {
    const known = label !== null && rows.some((row) => row.label === label);
    const [item, button] = [made("li", ""), made("button", known ? colour(label) : "other")];
    button.type = "button";
    button.append(made("b", "", clock(start, 1)), made("span", "", label ?? props.words.none), made("i", "", percent(score)));
    button.addEventListener("click", () => seek(start));
    item.append(button);
    return item;
}

function draw() {
    const found = props.value;
    element.hidden = !found;
    caption();
    if (!found) {
        colourOf.clear();
        seconds = 0;
        return;
    }
    const { end, bounds, rows, segments } = found;
    const lines = rows.map(({ label, scores }) => {
        const node = line(bounds, scores);
        node.setAttribute("class", colour(label));
        return node;
    });
    part("lines").replaceChildren(...lines);
    part("legend").replaceChildren(...rows.map(({ label }) => made("span", colour(label), label)));
    const blocks = segments.map((segment) => {
        const known = segment.label !== null && rows.some(({ label }) => label === segment.label);
        const block = made("div", known ? colour(segment.label) : "other", segment.label ?? "");
        block.style.left = across(segment.start);
        block.style.width = across(segment.end - segment.start);
        return block;
    });
    part("strip").replaceChildren(...blocks);
    part("segments").replaceChildren(...segments.map((segment) => listed(segment, rows)));
    part("axis").replaceChildren(...ticksUpTo(end, innerWidth < 640 ? 4 : 8));
    part("area").setAttribute("aria-valuemax", end.toFixed(1));
    placeMark(seconds);
}

const area = part("area");
const timeOf = (event) => {
    const box = area.getBoundingClientRect();
    return within((props.value.end * (event.clientX - box.left)) / box.width);
};
area.addEventListener("pointermove", (event) => showTip(timeOf(event)));
area.addEventListener("pointerleave", () => (part("tip").hidden = true));
area.addEventListener("click", (event) => seek(timeOf(event)));
area.addEventListener("keydown", (event) => {
    const { bounds, end } = props.value;
    const next = bounds.find((bound) => bound > seconds + 0.01) ?? end;
    const previous = bounds.findLast((bound) => bound < seconds - 0.01) ?? 0;
    const target = { ArrowRight: next, ArrowUp: next, ArrowLeft: previous, ArrowDown: previous, Home: 0, End: end };
    if (event.key in target) {
        event.preventDefault();
        seek(target[event.key]);
        showTip(seconds);
    }
});
area.addEventListener("blur", () => (part("tip").hidden = true));
// Media events do not bubble, but they can be caught on their way down.
document.addEventListener(
    "timeupdate",
    (event) => props.value && event.target === video() && placeMark(event.target.currentTime),
    true,
);
watch("value", draw);
draw();
