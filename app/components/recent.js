// The results that this browser has seen lately: their ids are stored here, and the server says which are still there.
const recent = {
    key: "nonlocal-video results",
    most: 12,
    ids() {
        try {
            return JSON.parse(localStorage.getItem(this.key)) || [];
        } catch {
            return [];
        }
    },
    store(ids) {
        try {
            localStorage.setItem(this.key, JSON.stringify(ids.slice(0, this.most)));
        } catch {
            // A browser that stores nothing has no list.
        }
    },
    add(id) {
        this.store([id, ...this.ids().filter((other) => other !== id)]);
    },
    remove(id) {
        this.store(this.ids().filter((other) => other !== id));
    },
    async list(root, without, address) {
        const asked = this.ids();
        const answer = asked.length ? await fetch(`/r?ids=${asked.join(",")}`).catch(() => null) : null;
        if (!answer?.ok) {
            return;
        }
        const found = await answer.json();
        this.store([...this.ids().filter((id) => !asked.includes(id)), ...found.map((one) => one.id)]);
        const items = found.filter((one) => one.id !== without).map((one) => {
            const item = document.createElement("li");
            const link = item.appendChild(document.createElement("a"));
            link.href = address(one.id);
            const picture = link.appendChild(new Image());
            picture.alt = "";
            picture.loading = "lazy";
            picture.src = `/r/${one.id}/thumbnail.jpg`;
            link.append(one.label, " ");
            link.appendChild(document.createElement("span")).textContent = percent(one.score);
            return item;
        });
        root.querySelector("ul").replaceChildren(...items);
        root.hidden = !items.length;
    },
};
