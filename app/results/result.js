// The page of a result: switches the player, copies, keeps and deletes, and lists what this browser has seen lately.
const main = document.querySelector("main");
const id = main.dataset.id;
const life = document.getElementById("life");

const stage = document.getElementById("stage");
if (stage) {
    const words = JSON.parse(stage.dataset.words);
    const kept = async () => ({ words: words.kept });
    const player = makePlayer(stage.querySelector(".player"), words, { ask: kept, evidence: kept, check: kept, region() {}, elsewhere() {} });
    fetch(`/r/${id}/answer.json`).then((answer) => answer.json()).then((detail) => player.load(detail.player, detail));
}

const copy = document.getElementById("copy");
copy?.addEventListener("click", async () => {
    const address = `${location.origin}/r/${id}`;
    const words = copy.textContent;
    try {
        await navigator.clipboard.writeText(address);
        copy.textContent = copy.dataset.copied;
        setTimeout(() => { copy.textContent = words; }, 2000);
    } catch {
        life.textContent = address; // plain HTTP has no clipboard
    }
});

async function ask(address, method) {
    const answer = await fetch(address, { method });
    if (!answer.ok) {
        life.textContent = (await answer.json()).message;
    }
    return answer.ok;
}

document.getElementById("save")?.addEventListener("click", async (event) => {
    if (await ask(`/r/${id}/save`, "POST")) {
        event.target.remove();
        life.textContent = life.dataset.saved;
    }
});

const remove = document.getElementById("delete");
remove?.addEventListener("click", async () => {
    const words = remove.textContent;
    if (words !== remove.dataset.sure) {
        remove.textContent = remove.dataset.sure;
        setTimeout(() => { remove.textContent = words; }, 4000);
    } else if (await ask(`/r/${id}`, "DELETE")) {
        recent.remove(id);
        location.reload();
    }
});

document.addEventListener("click", (event) => {
    const menu = document.querySelector(".menu");
    if (menu && !menu.contains(event.target)) {
        menu.open = false;
    }
});
document.addEventListener("keydown", (event) => {
    const menu = document.querySelector(".menu[open]");
    if (event.key === "Escape" && menu) {
        menu.open = false;
        menu.querySelector("summary").focus();
    }
});

if (document.querySelector("[data-waiting]")) {
    setTimeout(() => location.reload(), 2000);
}
if (id) {
    recent.add(id);
}
recent.list(document.getElementById("recent"), id, (other) => `/r/${other}`);
