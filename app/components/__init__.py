"""Parts of the page that several tabs use: the player, plots, buttons, and the style sheet."""
