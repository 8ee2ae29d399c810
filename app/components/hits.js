// The moments that a search found: each plays by itself while it is seen; "more" tells of a click, and
// data-ticked of the list of what is to be saved.
const list = element.querySelector("ol"), words = props.words;
const still = matchMedia("(prefers-reduced-motion: reduce)");
const seen = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
        if (isIntersecting && !still.matches) target.play().catch(() => {});
        else target.pause();
    }
});

function make(tag, className, text) {
    const made = document.createElement(tag);
    made.className = className;
    if (text !== undefined) made.textContent = text;
    return made;
}

function card(moment, number) {
    const item = make("li", "moment"), video = make("video", ""), row = make("div", "moment-row");
    Object.assign(video, { muted: true, loop: true, playsInline: true, preload: "metadata" });
    video.setAttribute("aria-label", `${moment.name}, ${moment.when}`);
    if (still.matches) video.controls = true;
    const more = make("button", "moment-more quiet", words.more), tick = make("input", ""), choose = make("label", "moment-choose");
    more.type = "button";
    more.addEventListener("click", () => trigger("more", { search: moment.search, moments: [number] }));
    tick.type = "checkbox";
    tick.addEventListener("change", () => {
        const moments = [...list.querySelectorAll("input")].flatMap((box, index) => (box.checked ? [index] : []));
        list.dataset.ticked = moments.length ? JSON.stringify({ search: moment.search, moments }) : "";
    });
    choose.append(tick, words.choose_one);
    row.append(more, choose);
    const likeness = make("span", "moment-likeness", moment.score > 0 ? words.likeness.replace("{score}", moment.score.toFixed(2)) : words.unlike);
    const bar = make("i", "");
    bar.style.width = `${100 * Math.max(0, moment.score)}%`;
    likeness.append(bar);
    item.append(video, make("strong", "", moment.name), make("span", "moment-when", moment.when), likeness, row);
    return item;
}

let shown = [];
function show() {
    const moments = JSON.parse(props.value || "[]");
    const isSame = moments.length === shown.length
        && moments.every((one, index) => one.search === shown[index].search);
    if (!isSame) {
        seen.disconnect();
        list.replaceChildren(...moments.map(card));
        list.dataset.ticked = "";
    }
    moments.forEach((moment, index) => {
        const video = list.children[index].querySelector("video");
        if (!moment.url || video.getAttribute("src") === moment.url) return;
        video.src = moment.url;
        seen.observe(video);
    });
    shown = moments;
}

watch("value", show);
show();
