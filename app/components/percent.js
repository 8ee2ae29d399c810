// A score as a figure: what is nearly nothing or nearly certain is not rounded to it. A row's score of 1 was rounded, too.
const percent = (score) => (score > 0 && score < 0.005 ? "<1%" : score >= 0.995 ? ">99%" : `${Math.round(100 * score)}%`);
