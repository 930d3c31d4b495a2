// Asks how the job stands that the value names ("VIEW TASK"), shows it in every live line of that job, and tells the
// server when that task has ended.
// A screen reader hears each stage once, from a region of its own.
let name = '', task = '', timer = 0;
const spoken = document.createElement('div');
spoken.className = 'spoken';
spoken.setAttribute('role', 'status');
document.body.append(spoken);
const speak = (stage) => { if (stage && spoken.textContent !== stage) spoken.textContent = stage; };
const show = (state) => {
  for (const line of document.querySelectorAll(`.say[data-live="${name}"]`)) {
    const said = line.querySelector('p'), bar = line.querySelector('.bar');
    if (said.textContent !== state.text) said.textContent = state.text;
    if (state.stage) bar.setAttribute('aria-label', state.stage);
    bar.setAttribute('aria-valuenow', Math.round(100 * state.share));
    bar.firstElementChild.style.width = `${100 * state.share}%`;
  }
};
const ask = async () => {
  const asked = name;
  let pause = document.hidden ? 3000 : 400, state = null;
  try {
    const answer = await fetch(`jobs/${asked}/status`, {cache: 'no-store'});
    state = answer.status === 404 ? {busy: false} : answer.ok ? await answer.json() : null;
  } catch { /* the server is out of reach: ask again, later */ }
  if (asked !== name) return;
  speak(state?.stage);
  if (state === null) pause = 5000;
  else if (state.busy && state.task === task) show(state);
  else return trigger('settled');
  timer = setTimeout(ask, pause);
};
const start = () => {
  clearTimeout(timer);
  [name, task] = (props.value || ' ').split(' ');
  if (name) timer = setTimeout(ask, 300);
};
watch('value', start);
start();
