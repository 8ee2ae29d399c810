// Two players in step: the time is that of the clip, and each player shows its own part of it.
const words = props.words;
let sides = [];
let time = 0;
let playing = false;
let last = 0;
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
const controls = element.querySelector(".controls");
const [button, scrub, clock] = [...controls.children];
const legend = element.querySelector(".legend");
const begin = () => Math.min(...sides.map((side) => side.start));
const end = () => Math.max(...sides.map((side) => side.start + side.seconds));

function made(kind, className, text = "") {
    return Object.assign(document.createElement(kind), { className, textContent: text });
}

function figure(side, number) {
    const box = made("figure", "");
    const caption = made("figcaption", "");
    caption.append(made("strong", "", number ? words.second : words.first), ` ${side.model}`);
    const video = Object.assign(made("video", ""), { muted: true, playsInline: true, preload: "auto" });
    video.src = `/r/${side.result}/evidence.mp4`;
    video.setAttribute("aria-label", `${caption.textContent}: ${side.top[0][0]}`);
    side.video = video;
    const bars = made("ol", "bars");
    for (const [label, score] of side.top) {
        const item = made("li", "");
        const meter = made("span", "meter");
        meter.append(made("i", ""));
        meter.firstChild.style.width = `${100 * score}%`;
        item.append(made("span", "label", label), made("span", "percent", percent(score)), meter);
        bars.append(item);
    }
    const link = Object.assign(made("a", "", words.open), { href: `/r/${side.result}`, target: "_blank", rel: "noopener" });
    box.append(caption, video, bars, link);
    return box;
}

function show() {
    for (const side of sides) {
        const wanted = Math.min(Math.max(time - side.start, 0), side.seconds - 0.01);
        const inside = time >= side.start && time < side.start + side.seconds;
        if (playing && inside) {
            side.video.play().catch(() => {});
        } else {
            side.video.pause();
        }
        if (Math.abs(side.video.currentTime - wanted) > (playing && inside ? 0.12 : 0.01)) {
            side.video.currentTime = wanted;
        }
    }
    scrub.value = time;
    scrub.setAttribute("aria-valuetext", `${time.toFixed(1)} s`);
    clock.textContent = `${time.toFixed(2)} s`;
}

function step(now) {
    if (!playing || !element.isConnected) {
        return;
    }
    time += (now - last) / 1000;
    last = now;
    if (time >= end()) {
        time = begin();
    }
    show();
    requestAnimationFrame(step);
}

function play(wanted) {
    playing = wanted;
    button.textContent = playing ? words.pause : words.play;
    last = performance.now();
    show();
    if (playing) {
        requestAnimationFrame(step);
    }
}

button.addEventListener("click", () => play(!playing));
scrub.addEventListener("input", () => {
    time = Number(scrub.value);
    play(false);
});

function load() {
    playing = false;
    sides = (props.value || []).map((side) => ({ ...side }));
    element.querySelector(".sides").replaceChildren(...sides.map(figure));
    controls.hidden = legend.hidden = sides.length < 2;
    if (sides.length === 2) {
        [scrub.min, scrub.max, time] = [begin(), end(), begin()];
        play(!calm);
    }
}

watch("value", load);
load();
