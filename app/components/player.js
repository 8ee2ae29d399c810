// The player: the clip, the span of it that was seen, maps over it, and questions about a point.
// `owner` tells what happens outside: ask(frame, x, y), evidence(label), check(shown), region(box), elsewhere(seconds).
function makePlayer(root, words, owner) {
    const find = (selector) => root.querySelector(selector);
    const [picture, canvas, marks, whole, span] = [".picture", ".heat", ".marks", ".whole", ".span"].map(find);
    const strip = makeStrip(find(".strip"), (share) => seek(share));
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    const state = {};

    function clear() {
        Object.assign(state, { data: null, mode: "clip", before: "evidence", label: null, point: null, dots: [], region: null });
        Object.assign(state, { frame: 0, asked: 0, canPlay: false, wholeFilm: null, long: false, extra: {} });
        for (const video of [whole, span]) {
            video.pause();
            video.removeAttribute("src");
            video.load();
        }
        for (const track of whole.textTracks) {
            track.mode = "disabled";
        }
        root.classList.remove("ready", "asking");
        strip.clear();
        say(words.waiting);
        find(".cannot").hidden = true;
        find(".numbers").hidden = true;
        find(".made").hidden = true;
        draw();
    }

    // A new look at the same clip: its film stays, and nothing of the answer before it.
    function renew() {
        state.asked++;
        Object.assign(state, { label: null, point: null, dots: [], extra: {} });
        show("clip");
        root.classList.remove("ready", "asking");
        find(".numbers").hidden = find(".made").hidden = true;
        say(words.waiting);
    }

    const isAnswered = () => root.classList.contains("ready");
    const active = () => (state.mode === "clip" && (state.long || !state.data) ? whole : span);
    const shownMap = () => (state.mode === "clip" ? null : state.extra[mapKey()] ?? null);
    const mapKey = () => (state.mode === "evidence" ? `evidence:${state.label}` : state.mode);

    function say(text, busy = false) {
        find(".legend").textContent = text;
        root.classList.toggle("asking", busy);
    }

    function shape(width, height) {
        if (width && height) {
            picture.style.setProperty("--ratio", width / height);
        }
    }

    function start(video) {
        video.muted = true;
        video.playbackRate = state.speed ?? 1;
        if (!calm) {
            video.play().catch(() => {});
        }
    }

    function showClip(url) {
        clear();
        if (url) {
            whole.src = url;
            start(whole);
        }
        layers();
    }

    function load(data, answer) {
        state.data = data;
        state.seen = data.seen;
        state.long = state.canPlay && answer.video.end > 1.3 * data.playback;
        state.label = answer.top[0][0];
        const { evidence, attention } = data.maps;
        state.extra = { ...(evidence && { [`evidence:${state.label}`]: evidence }), ...(attention && { attention }) };
        state.first = state.before = evidence ? "evidence" : attention ? "attention" : "clip";
        find(".mode-evidence").hidden = !evidence;
        find(".mode-attention").hidden = !attention;
        for (const part of [".made", ".switch", ".slider"]) {
            find(part).hidden = !evidence && !attention;
        }
        span.src = data.file.url;
        shape(answer.video.width, answer.video.height);
        root.classList.add("ready");
        strip.film(data.file.url, data.playback, () => state.data === data);
        show(state.first);
        start(span);
    }

    function layers() {
        const video = active();
        for (const one of [whole, span]) {
            one.hidden = one !== video;
            if (one !== video) {
                one.pause();
            }
        }
        strip.showWhole(video === whole);
        if (video === whole && state.data && state.canPlay && state.wholeFilm !== whole.src && Number.isFinite(whole.duration)) {
            state.wholeFilm = whole.src;
            strip.film(whole.src, whole.duration, () => state.wholeFilm === whole.src, true);
        }
        find(".cannot").hidden = !(video === whole && state.unplayable && !state.data);
    }

    function show(mode) {
        const before = active();
        const time = seconds();
        if (mode !== "query" && state.mode === "query") {
            forget();
        }
        state.mode = mode;
        const video = active();
        if (video !== before) {
            const paused = before.paused && before.readyState > 0;
            layers();
            goTo(time);
            if (!paused) {
                start(video);
            }
        }
        layers();
        const radio = find(`input[value="${mode}"]`);
        for (const one of root.querySelectorAll(".switch input")) {
            one.checked = one === radio;
        }
        const map = shownMap();
        say(map?.legend ?? state.data?.words ?? (state.data ? words.clipLegend : words.waiting));
        find(".strength").disabled = !map;
        find(".made p").textContent = words.madeOf[mode] ?? words.madeOf.evidence;
        find(".check").hidden = mode === "clip" || mode === "query";
        find(".checked").textContent = "";
        strip.curve(map?.curve ?? state.extra[`evidence:${state.label}`]?.curve ?? state.extra.attention?.curve ?? null, mode === "clip");
        draw();
    }

    function seconds() {
        if (active() === whole) {
            return whole.currentTime || 0;
        }
        return state.data?.seconds[state.frame] ?? 0;
    }

    function frameAt(time) {
        const times = state.data.seconds;
        let best = 0;
        for (let i = 1; i < times.length; i++) {
            if (Math.abs(times[i] - time) < Math.abs(times[best] - time)) {
                best = i;
            }
        }
        return best;
    }

    function goTo(time) {
        if (active() === whole) {
            whole.currentTime = time;
        } else if (state.data) {
            span.currentTime = ((frameAt(time) + 0.5) * state.data.playback) / state.data.seconds.length;
        }
        update();
    }

    function seek(share) {
        const video = active();
        if (video.duration) {
            video.currentTime = Math.min(share, 0.9999) * video.duration;
            update();
        }
    }

    function update() {
        const video = active();
        if (video === span && state.data) {
            const count = state.data.seconds.length;
            state.frame = Math.min(Math.floor((span.currentTime / state.data.playback) * count + 1e-6), count - 1);
        }
        const time = seconds();
        find(".clock").textContent = `${time.toFixed(2)} s`;
        strip.mark(video.duration ? video.currentTime / video.duration : 0, `${time.toFixed(2)} s`);
        find(".play").setAttribute("aria-label", video.paused ? words.play : words.pause);
        root.classList.toggle("paused", video.paused);
        owner.time?.(time);
        draw();
    }

    function draw() {
        drawHeat(canvas, shownMap(), state.frame, state.seen ?? [0, 0, 1, 1], Number(find(".strength").value) / 100);
        drawMarks(marks, state);
    }

    // Questions about a point
    async function ask(x, y, frame = state.frame) {
        if (!isAnswered()) {
            return;
        }
        if (active() === whole && !within(seconds())) {
            owner.elsewhere(seconds());
            return;
        }
        if (active() === whole) {
            frame = frameAt(seconds());
        }
        if (state.mode !== "query") {
            state.before = state.mode;
        }
        Object.assign(state, { point: { x, y, frame }, dots: [] });
        const number = ++state.asked;
        const data = state.data;
        say(words.asking, true);
        drawMarks(marks, state);
        const reply = await owner.ask(data.seconds[frame], x, y);
        if (number !== state.asked || data !== state.data) {
            return; // another question, or another clip, has come
        }
        if (!reply.map) {
            forget();
            show(state.before);
            say(reply.words);
            return;
        }
        state.extra.query = reply.map;
        state.dots = reply.dots;
        show("query");
        say(reply.words);
        find(".numbers").hidden = false;
        find(".numbers ul").replaceChildren(...reply.numbers.map((line) => textNode("li", line)));
    }

    const within = (time) => time >= state.data.seconds[0] - 0.1 && time <= state.data.seconds.at(-1) + 0.1;

    function forget() {
        state.asked++;
        Object.assign(state, { point: null, dots: [] });
        delete state.extra.query;
        find(".numbers").hidden = true;
    }

    function endQuestion() {
        if (state.point) {
            show(state.before === "query" ? state.first : state.before);
            forget();
            draw();
        }
    }

    async function explain(label) {
        const data = state.data;
        if (!data) {
            return false;
        }
        const key = `evidence:${label}`;
        if (!state.extra[key]) {
            say(words.asking, true);
            const reply = await owner.evidence(label);
            if (data !== state.data || !reply.map) {
                say(reply.words ?? "");
                return false;
            }
            state.extra[key] = reply.map;
        }
        state.label = label;
        show("evidence");
        return true;
    }

    async function check() {
        const [data, mode, label] = [state.data, state.mode, state.label];
        find(".checked").textContent = words.checking;
        const reply = await owner.check({ kind: mode, label });
        if (data === state.data && mode === state.mode && label === state.label) {
            find(".checked").textContent = reply.words;
        }
    }

    // Pointer: a click asks, a drag chooses a part of the picture.
    const at = (event) => {
        const box = picture.getBoundingClientRect();
        const inside = (value) => Math.min(Math.max(value, 0), 1);
        return { x: inside((event.clientX - box.left) / box.width), y: inside((event.clientY - box.top) / box.height) };
    };
    picture.addEventListener("pointerdown", (event) => {
        if (event.button === 0 && isAnswered() && !event.target.closest("button")) {
            state.from = { ...at(event), pageX: event.clientX, pageY: event.clientY };
            picture.setPointerCapture(event.pointerId);
        }
    });
    picture.addEventListener("pointermove", (event) => {
        if (state.from && Math.hypot(event.clientX - state.from.pageX, event.clientY - state.from.pageY) > 8) {
            const to = at(event);
            state.region = [
                Math.min(state.from.x, to.x), Math.min(state.from.y, to.y), Math.max(state.from.x, to.x), Math.max(state.from.y, to.y),
            ];
            drawMarks(marks, state);
        }
    });
    picture.addEventListener("pointerup", (event) => {
        const [from, region] = [state.from, state.region];
        Object.assign(state, { from: null, region: null });
        if (!from) {
            return;
        }
        if (!region) {
            ask(from.x, from.y);
        } else if (region[2] - region[0] > 0.05 && region[3] - region[1] > 0.05) {
            owner.region(region);
        }
        drawMarks(marks, state);
    });
    picture.addEventListener("pointercancel", () => {
        Object.assign(state, { from: null, region: null });
        drawMarks(marks, state);
    });
    picture.addEventListener("keydown", (event) => {
        const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
        if (event.target !== picture) {
            return;
        }
        if (event.key === "Enter") {
            ask(0.5, 0.5);
        } else if (event.key === " ") {
            toggle();
        } else if (event.key in steps && state.point) {
            const inside = (value) => Math.min(Math.max(value, 0.01), 0.99);
            const [x, y] = steps[event.key].map((step, i) => inside(state.point[i ? "y" : "x"] + 0.05 * step));
            ask(x, y, state.point.frame);
        } else {
            return;
        }
        event.preventDefault();
    });
    root.addEventListener("keydown", (event) => event.key === "Escape" && endQuestion());

    function toggle() {
        const video = active();
        video.paused ? video.play().catch(() => {}) : video.pause();
        update();
    }

    find(".play").addEventListener("click", toggle);
    find(".strength").addEventListener("input", draw);
    find(".check").addEventListener("click", check);
    for (const radio of root.querySelectorAll(".switch input")) {
        radio.addEventListener("change", () => show(radio.value));
    }
    for (const radio of root.querySelectorAll(".speed input")) {
        radio.addEventListener("change", () => {
            state.speed = Number(radio.value);
            whole.playbackRate = span.playbackRate = state.speed;
        });
    }
    for (const video of [whole, span]) {
        const next = () => {
            if (video === active()) {
                update();
            }
            video.requestVideoFrameCallback?.(next);
        };
        video.requestVideoFrameCallback?.(next);
        for (const name of ["timeupdate", "seeked", "play", "pause", "loadeddata"]) {
            video.addEventListener(name, () => video === active() && update());
        }
    }
    whole.addEventListener("loadedmetadata", () => {
        state.canPlay = whole.videoWidth > 0;
        shape(whole.videoWidth, whole.videoHeight);
        state.unplayable = !state.canPlay;
        layers();
        owner.size?.(whole.duration, whole.videoWidth, whole.videoHeight);
    });
    whole.addEventListener("error", () => {
        if (whole.hasAttribute("src")) {
            state.canPlay = false;
            state.unplayable = true;
            layers();
        }
    });
    new ResizeObserver(draw).observe(picture);

    function moment(time) {
        if (!state.long) {
            return;
        }
        show("clip");
        whole.currentTime = time;
        start(whole);
        update();
    }

    function captions(segments) {
        const track = whole.textTracks[0] ?? whole.addTextTrack("captions", words.captions);
        track.mode = "showing";
        for (const cue of [...(track.cues ?? [])]) {
            track.removeCue(cue);
        }
        for (const [start, end, label, score] of segments) {
            if (label !== null) {
                track.addCue(new VTTCue(start, end - 0.001, `${label} ${percent(score)}`));
            }
        }
    }

    clear();
    return { clear, renew, showClip, load, explain, moment, captions, say };
}

function textNode(tag, text, className = "") {
    const node = document.createElement(tag);
    node.textContent = text;
    node.className = className;
    return node;
}
