// Follows the stage: the address and the link of an answer are there with its scores, its files with its maps.
const words = props.words;
const find = (selector) => element.querySelector(selector);
const [bar, link, copy, save, files, similar] = [".keep", ".link", ".copy", ".save", ".files", ".similar"].map(find);
const KINDS = { mp4: "MP4", gif: "GIF", webp: "WebP", png: `PNG ${words.strip}` };
let shown = "";
let run = ""; // identity of the run that is shown; a result that was kept has none
let now = 0; // seconds in the clip

function show(id) {
    shown = id;
    bar.hidden = !id;
    link.href = id ? `/r/${id}` : "/";
    save.open = false;
    save.hidden = similar.hidden = true;
}

document.addEventListener("run-cleared", () => show(""));
document.addEventListener("run-scored", ({ detail }) => {
    if (detail.result && detail.result !== shown) {
        show(detail.result);
        address.push(shown, location.hash);
        recent.add(shown);
        document.dispatchEvent(new CustomEvent("recent-changed"));
    }
});
document.addEventListener("run-answered", ({ detail }) => {
    if (detail.result === shown) {
        run = detail.run;
        save.hidden = false;
        similar.hidden = run.startsWith("kept.");
        const rows = Object.keys(detail.player.maps).map((name) =>
            row(words.maps[name], Object.entries(KINDS).map(([kind, text]) => [`${name}.${kind}`, text])),
        );
        files.replaceChildren(...rows, row(words.scores, [["result.json", "JSON"]]), ...(rows.length ? [row(words.everything, [["all.zip", "ZIP"]])] : []));
    }
});

function row(title, names) {
    const line = document.createElement("p");
    line.append(Object.assign(document.createElement("span"), { textContent: title }));
    for (const [name, text] of names) {
        line.append(Object.assign(document.createElement("a"), { href: `/r/${shown}/${name}`, download: name, textContent: text }));
    }
    return line;
}

document.addEventListener("player-time", ({ detail }) => {
    now = detail;
});
similar.addEventListener("click", () => {
    trigger("similar", { run, seconds: now });
    address.push(address.result(), "#search");
    startAt(now, document.querySelector("#search-player video")?.getAttribute("src"));
});

// The player of Search begins at the moment that was asked about, once it has the clip.
async function startAt(seconds, before) {
    for (let tries = 0; tries < 100; tries++) {
        const video = document.querySelector("#search-player video");
        if (video?.videoWidth && (tries > 20 || video.getAttribute("src") !== before)) {
            video.currentTime = seconds;
            document.querySelector("#search-said")?.scrollIntoView({ block: "nearest" });
            return;
        }
        await new Promise((done) => setTimeout(done, 100));
    }
}

copy.addEventListener("click", async () => {
    try {
        await navigator.clipboard.writeText(link.href);
        copy.textContent = words.copied;
        setTimeout(() => { copy.textContent = words.copy; }, 2000);
    } catch {
        link.textContent = link.href; // a page over plain HTTP has no clipboard
    }
});
document.addEventListener("click", (event) => {
    if (!save.contains(event.target)) {
        save.open = false;
    }
});
element.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && save.open) {
        save.open = false;
        save.querySelector("summary").focus();
    }
});

async function open(id) {
    const answer = await fetch(`/r/${encodeURIComponent(id)}/answer.json`).catch(() => null);
    if (id !== address.result()) {
        return; // somebody has gone on meanwhile
    }
    const detail = answer?.ok ? await answer.json() : { state: "error", words: words.expired, refused: true };
    document.dispatchEvent(new CustomEvent("result-opened", { detail }));
}

addEventListener("popstate", () => {
    address.showTab();
    const id = address.result();
    if (id && id !== shown) {
        open(id);
    } else if (!id && shown) {
        location.reload(); // back to the empty page
    }
});
address.showTab();
if (address.result()) {
    open(address.result());
}
