// What a strip of time is drawn with: a colour for each action, times, ticks, elements.
const COLOURS = 8;
const TICKS = [0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400];
const colourOf = new Map(); // label -> number: an action keeps its colour while more of the video is looked at

function clock(time, digits = 0) {
    const [minutes, rest] = [Math.floor(time / 60), time % 60];
    const text = rest.toFixed(digits).padStart(digits ? digits + 3 : 2, "0");
    return minutes >= 60 ? `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")}:${text}` : `${minutes}:${text}`;
}

function colour(label) {
    if (label === null) {
        return "other";
    }
    if (!colourOf.has(label)) {
        colourOf.set(label, colourOf.size % COLOURS);
    }
    return `series-${colourOf.get(label)}`;
}

function made(tag, className, text = "") {
    const node = document.createElement(tag);
    node.className = className;
    node.textContent = text;
    return node;
}

function ticksUpTo(end, most) {
    const step = TICKS.find((tick) => end / tick <= most) ?? 28800;
    return Array.from({ length: Math.floor(end / step) + 1 }, (_, i) => {
        const tick = made("span", "", clock(i * step, step < 1 ? 1 : 0));
        tick.style.left = `${(100 * i * step) / end}%`;
        return tick;
    });
}
