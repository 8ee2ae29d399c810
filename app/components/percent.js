// A score as a figure: what is nearly nothing or nearly certain is not rounded to it. A row's 0 and 1 were rounded, too.
const percent = (score) => (score < 0.005 ? "<1%" : score >= 0.995 ? ">99%" : `${Math.round(100 * score)}%`);
