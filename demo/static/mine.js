// The videos that this browser made, by the key of each: localStorage knows them, the server only which are there still.
const KEY = 'lipsync-mine', MOST = 12;
const read = () => {
  try { return JSON.parse(localStorage.getItem(KEY)) || []; } catch { return []; }
};
const write = (all) => {
  try { localStorage.setItem(KEY, JSON.stringify(all)); } catch { /* a browser that keeps nothing */ }
};
const show = async () => {
  const place = element.querySelector('.mine');
  if (!place) return;
  const {job, view, title, name, note} = place.dataset;
  let mine = read().filter((one) => /^[\w-]{32}$/.test(one.job) && /^[\w-]{32}$/.test(one.view));
  if (job && !mine.some((one) => one.job === job)) mine.unshift({job, view, at: Date.now()});
  mine = mine.slice(0, MOST);
  if (mine.length) {
    try {
      const answer = await fetch(`mine?views=${mine.map((one) => one.view).join(',')}`, {cache: 'no-store'});
      const there = answer.ok ? await answer.json() : null;
      if (there) mine = mine.filter((one) => there.includes(one.view));
    } catch { /* the server is out of reach: they stay */ }
  }
  write(mine);
  const others = mine.filter((one) => one.job !== job);
  place.replaceChildren();
  place.hidden = !others.length;
  if (place.hidden) return;
  const head = document.createElement('h3'), small = document.createElement('p'), list = document.createElement('ul');
  head.textContent = title;
  small.textContent = note;
  small.className = 'note';
  for (const one of others) {
    const item = document.createElement('li'), link = document.createElement('a'), image = document.createElement('img');
    const when = new Date(one.at).toLocaleTimeString([], {hour: '2-digit', minute: '2-digit'});
    link.href = `#job=${one.job}`;
    image.src = `jobs/${one.view}/preview.jpg`;
    image.alt = name;
    link.append(image, when);
    item.append(link);
    list.append(item);
  }
  place.append(head, small, list);
};
watch('value', show);
show();
