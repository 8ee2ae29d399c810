// A film strip to scrub, with a curve of strength over time, and the marks of a question on the picture.
const SVG = "http://www.w3.org/2000/svg";
const PICTURES = 10;

function makeStrip(root, onSeek) {
    const [ofSpan, ofWhole, line, area, mark] = [".of-span", ".of-whole", ".line", ".area", ".now"].map((name) => root.querySelector(name));

    function clear() {
        for (const film of [ofSpan, ofWhole]) {
            film.getContext("2d").clearRect(0, 0, film.width, film.height);
        }
        curve(null);
        place(0, "");
    }

    // Pictures are taken from the preview in another video element, so that the one that is watched is not disturbed.
    async function fill(url, playback, isWanted, isWhole = false) {
        const film = isWhole ? ofWhole : ofSpan;
        const video = document.createElement("video");
        video.muted = true;
        video.preload = "auto";
        video.src = url;
        await new Promise((done) => (video.onloadeddata = video.onerror = done));
        if (!video.videoWidth) {
            return;
        }
        const cell = film.width / PICTURES;
        const scale = Math.max(cell / video.videoWidth, film.height / video.videoHeight);
        const [width, height] = [video.videoWidth * scale, video.videoHeight * scale];
        const pen = film.getContext("2d");
        for (let i = 0; i < PICTURES && isWanted(); i++) {
            const there = new Promise((done) => (video.onseeked = done));
            video.currentTime = ((i + 0.5) / PICTURES) * playback;
            await there;
            if (!isWanted()) {
                return;
            }
            pen.save();
            pen.beginPath();
            pen.rect(i * cell, 0, cell, film.height);
            pen.clip();
            pen.drawImage(video, i * cell + (cell - width) / 2, (film.height - height) / 2, width, height);
            pen.restore();
        }
        video.removeAttribute("src");
        video.load();
    }

    function curve(values, faint = false) {
        root.classList.toggle("faint", faint);
        if (!values) {
            line.setAttribute("points", "");
            area.setAttribute("points", "");
            return;
        }
        const points = values.map((value, i) => `${(100 * (i + 0.5)) / values.length},${30 - 27 * value}`);
        const whole = [`0,${30 - 27 * values[0]}`, ...points, `100,${30 - 27 * values.at(-1)}`].join(" ");
        line.setAttribute("points", whole);
        area.setAttribute("points", `0,30 ${whole} 100,30`);
    }

    function place(share, words) {
        mark.style.left = `${100 * share}%`;
        root.setAttribute("aria-valuenow", Math.round(100 * share));
        root.setAttribute("aria-valuetext", words);
    }

    const shareOf = (event) => {
        const box = root.getBoundingClientRect();
        return Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
    };
    root.addEventListener("pointerdown", (event) => {
        root.setPointerCapture(event.pointerId);
        onSeek(shareOf(event));
    });
    root.addEventListener("pointermove", (event) => event.buttons && onSeek(shareOf(event)));
    root.addEventListener("keydown", (event) => {
        const now = Number(root.getAttribute("aria-valuenow")) / 100;
        const target = { ArrowRight: now + 0.04, ArrowUp: now + 0.04, ArrowLeft: now - 0.04, ArrowDown: now - 0.04, Home: 0, End: 1 };
        if (event.key in target) {
            event.preventDefault();
            onSeek(Math.min(Math.max(target[event.key], 0), 1));
        }
    });
    // The curve is that of the span that was seen; the whole clip has a film of its own.
    const showWhole = (is) => root.classList.toggle("whole", is);
    return { clear, film: fill, curve, mark: place, showWhole };
}

function drawMarks(svg, state) {
    const nodes = [];
    const make = (tag, className, attributes) => {
        const node = document.createElementNS(SVG, tag);
        node.setAttribute("class", className);
        for (const [name, value] of Object.entries(attributes)) {
            node.setAttribute(name, value);
        }
        nodes.push(node);
        return node;
    };
    const share = (value) => `${Number((100 * value).toFixed(2))}%`;
    const { point, dots, region, frame } = state;
    const near = (one) => Math.abs(one.frame - frame) <= 3;
    for (const dot of point ? dots : []) {
        const when = near(dot) ? "now" : "";
        make("line", `arrow ${when}`, { x1: share(point.x), y1: share(point.y), x2: share(dot.x), y2: share(dot.y) });
    }
    for (const dot of point ? dots : []) {
        make("circle", `dot ${near(dot) ? "now" : ""}`, { cx: share(dot.x), cy: share(dot.y), r: 4 + 12 * Math.sqrt(dot.share) });
        if (near(dot) || dot === dots[0]) {
            const text = make("text", "share", { x: share(dot.x), y: share(dot.y), dy: dot.y < point.y ? -10 : 22 });
            text.textContent = `${(100 * dot.share).toFixed(dot.share < 0.1 ? 1 : 0)}%`;
        }
    }
    if (point) {
        make("circle", "ring dark", { cx: share(point.x), cy: share(point.y), r: 10 });
        make("circle", "ring", { cx: share(point.x), cy: share(point.y), r: 10 });
    }
    if (region) {
        const [x, y, right, bottom] = region;
        make("rect", "region", { x: share(x), y: share(y), width: share(right - x), height: share(bottom - y) });
    }
    svg.replaceChildren(...nodes);
}
