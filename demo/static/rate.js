'use strict';
// A rater's page: consent, sound check, one ballot a screen, thanks. Every answer is on the server's disk before the
// next ballot is shown. Videos are fetched whole before they are shown, both together, so that neither stalls or
// comes first, and those of the next ballot meanwhile.
(() => {
  const main = document.querySelector('main');
  const base = main.dataset.base, texts = JSON.parse(main.dataset.texts);
  const $ = (id) => document.getElementById(id);
  const say = (key, values = {}) =>
    Object.entries(values).reduce((said, [name, value]) => said.replace(`{${name}}`, value), texts[key]);
  const sections = ['consent', 'sound', 'ballot', 'paused', 'end'];
  const HEARD = 0.95, BIN_S = 0.1, APART_S = 0.08;

  function show(id, focus) {
    for (const one of sections) $(one).hidden = one !== id;
    fail('');
    if (focus) $(focus).focus({preventScroll: true});
    scrollTo(0, 0);
  }

  function fail(sentence) {
    $('error').textContent = sentence;
    $('error').hidden = !sentence;
  }

  class Refused extends Error {
    constructor(said) { super(said.error || ''); this.answered = said.answered; }
  }

  // A refusal is thrown as a sentence; what the network loses is thrown as it is.
  async function ask(path, body) {
    const post = {method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(body)};
    const answer = await fetch(base + path, body === undefined ? {} : post);
    if (answer.ok) return answer.json();
    throw new Refused(await answer.json().catch(() => ({error: texts.rate_unsaved})));
  }

  const attempt = (work) => work().catch((error) => fail(error instanceof Refused ? error.message : texts.rate_unsaved));

  // Consent -------------------------------------------------------------------------------------------------------

  // A study may ask for a window of some width, so that what is judged can be seen.
  const narrow = () => innerWidth < Number(main.dataset.width);
  function fits() {
    $('narrow').hidden = !narrow();
    $('begin').disabled = narrow() || !$('agree').checked;
    if (narrow() && running()) players.forEach((p) => p.video.pause());
  }
  addEventListener('resize', fits);

  $('agree').checked = false;
  $('agree').onchange = fits;
  $('begin').onclick = () => attempt(async () => {
    $('begin').disabled = true;
    const panel = Object.fromEntries(new URLSearchParams(location.search));
    const about = Object.fromEntries([...document.querySelectorAll('.about select')].map((s) => [s.name, s.value]));
    try {
      const said = await ask('/join', {consent: $('agree').checked, panel, description: about});
      history.replaceState(null, '', location.pathname); // nobody who looks over a shoulder sees the panel's number
      enter(said.phase);
    } finally { fits(); }
  });

  function enter(phase) {
    if (phase === 'sound') attempt(newCheck);
    else if (phase === 'ballot') attempt(nextBallot);
    else if (phase === 'end') attempt(finish);
    else show('consent');
  }

  // Sound check ---------------------------------------------------------------------------------------------------

  let check = null, voice = null;

  async function newCheck() {
    check = (await ask('/sound', {})).check;
    if (check === null) return nextBallot(); // there is no voice for it here, which is noted
    voice = new Audio(`${base}/sound/${check}`);
    $('heard').value = '';
    show('sound');
  }
  $('speak').onclick = () => { voice.currentTime = 0; voice.play().catch(() => fail(texts.rate_broken)); $('heard').focus(); };
  $('digits').onsubmit = (event) => {
    event.preventDefault();
    attempt(async () => {
      const {heard} = await ask('/sound', {check, said: $('heard').value});
      if (heard) return nextBallot();
      await newCheck();
      $('sound-said').textContent = texts.rate_sound_failed;
      $('speak').focus();
    });
  };

  // Playing -------------------------------------------------------------------------------------------------------

  const figures = [...document.querySelectorAll('#ballot figure')];
  const players = figures.map((figure) => ({side: figure.dataset.side, figure, video: figure.querySelector('video')}));
  let heardFrom = players[0], unlocked = false, unlockedAt = 0, hiddenSince = 0, before = 0, corrected = 0;
  let measured = {};

  function reset() {
    for (const p of players) Object.assign(p, {wall: 0, plays: 0, last: 0, heard: new Set(), over: false});
    measured = {rate: 1, hidden: 0};
    unlocked = false;
    listen(players[0]);
  }

  function listen(player) {
    heardFrom = player;
    for (const p of players) {
      p.video.muted = p !== player;
      p.figure.classList.toggle('heard', p === player);
    }
  }

  const running = () => players.some((p) => !p.video.paused && !p.video.ended);
  const bins = (p) => Math.max(1, Math.floor(p.video.duration / BIN_S));
  const share = (p) => (Number.isFinite(p.video.duration) ? Math.min(1, p.heard.size / bins(p)) : 0);
  const all = () => players.every((p) => share(p) >= HEARD);

  function tick() {
    const now = performance.now();
    for (const p of players) {
      const {video} = p;
      if (!video.paused && !video.ended) p.wall += (now - before) / 1000;
      if (p === heardFrom && !video.muted && video.volume > 0 && video.currentTime > p.last && video.playbackRate === 1) {
        for (let b = Math.floor(p.last / BIN_S); b <= video.currentTime / BIN_S && b < bins(p); b++) p.heard.add(b);
      }
      p.last = video.currentTime;
    }
    before = now;
    if (players.length === 2 && players.every((p) => !p.video.paused && !p.video.ended)) {
      const other = players.find((p) => p !== heardFrom);
      if (Math.abs(other.video.currentTime - heardFrom.video.currentTime) > APART_S && now - corrected > 1000) {
        corrected = now;
        other.video.currentTime = heardFrom.video.currentTime; // the one that is heard goes on without a jump
        other.last = other.video.currentTime;
      }
    }
    if (running()) requestAnimationFrame(tick);
  }

  async function play() {
    if (narrow()) return fits();
    if (running()) {
      players.forEach((p) => p.video.pause());
      return;
    }
    const resumed = players.some((p) => p.video.currentTime > 0 && !p.video.ended);
    if (!resumed) {
      if (!all()) listen(players.find((p) => share(p) < HEARD));
      for (const p of players) {
        p.video.currentTime = 0;
        Object.assign(p, {last: 0, over: false});
        p.plays += 1;
      }
    }
    try {
      await Promise.all(players.filter((p) => !p.video.ended).map((p) => p.video.play()));
    } catch (error) {
      if (error.name !== 'AbortError') $('said').textContent = texts.rate_broken;
      return;
    }
    before = performance.now();
    requestAnimationFrame(tick);
  }

  function name() {
    $('play').textContent = running() ? `❚❚ ${texts.rate_pause_video}` : `▶ ${unlocked ? texts.rate_replay : texts.rate_play}`;
    if (running()) $('said').textContent = unlocked ? '' : texts.rate_playing;
  }

  for (const p of players) {
    p.video.onplay = p.video.onpause = name;
    p.video.onratechange = () => {
      measured.rate = p.video.playbackRate === 1 ? measured.rate : p.video.playbackRate;
      p.video.playbackRate = 1;
    };
    p.video.onended = () => {
      tick();
      p.over = true;
      name();
      if (players.every((one) => one.over)) round();
    };
    if (players.length === 2) {
      p.figure.onpointerenter = p.figure.onpointerdown = () => listen(p);
      p.figure.onfocus = () => listen(p);
    }
    p.video.oncontextmenu = (event) => event.preventDefault();
  }

  function round() {
    if (!all()) setTimeout(() => document.hidden || running() || play(), 350); // once more, with the other sound
    else if (!unlocked) unlock();
  }

  function unlock() {
    unlocked = true;
    unlockedAt = performance.now();
    $('locked').disabled = false;
    $('said').textContent = texts.rate_unlocked;
    complete();
    name();
  }

  document.addEventListener('visibilitychange', () => {
    if (document.hidden) {
      hiddenSince = performance.now();
      players.forEach((p) => p.video.pause());
    } else if (hiddenSince) {
      measured.hidden += (performance.now() - hiddenSince) / 1000;
    }
  });

  function timings() {
    const found = {
      answer_s: Math.max(0, performance.now() - unlockedAt) / 1000, rate: measured.rate, hidden_s: measured.hidden,
      width: innerWidth, height: innerHeight, muted: players.every((p) => p.heard.size === 0), smooth: true,
    };
    for (const p of players) {
      const length = p.video.duration;
      if (!Number.isFinite(length)) continue;
      const quality = p.video.getVideoPlaybackQuality?.();
      if (quality && quality.droppedVideoFrames > 0.1 * quality.totalVideoFrames) found.smooth = false;
      Object.assign(found, {[`${p.side}_played_s`]: p.wall, [`${p.side}_heard_s`]: share(p) * length,
        [`${p.side}_length_s`]: length, [`${p.side}_replays`]: Math.max(0, p.plays - 1)});
    }
    return found;
  }

  // Ballots -------------------------------------------------------------------------------------------------------

  const form = $('answers');
  let ballot = null, again = false, busy = false, last = null, coming = {id: '', urls: null}, shown = [];

  async function fetched(videos) {
    const get = async (video) => {
      const answer = await fetch(`${base}/video/${video}`);
      if (!answer.ok) throw new Refused(await answer.json().catch(() => ({error: texts.rate_broken})));
      return URL.createObjectURL(await answer.blob());
    };
    const sides = Object.keys(videos);
    const urls = await Promise.all(sides.map((side) => get(videos[side])));
    return Object.fromEntries(sides.map((side, k) => [side, urls[k]]));
  }

  async function nextBallot() { await present((await ask('/next')).ballot, false); }

  async function present(given, correcting) {
    if (given === null) return finish();
    ballot = given;
    again = correcting;
    form.reset();
    reset();
    $('locked').disabled = true;
    $('next').disabled = true;
    $('next').textContent = texts.rate_next;
    $('explained').hidden = true;
    $('play').disabled = true;
    $('broken').hidden = false;
    $('back').hidden = again || !last;
    $('training').hidden = !ballot.training;
    const numbers = {n: ballot.number, of: ballot.of};
    $('number').textContent = say(ballot.training ? 'rate_training_of' : 'rate_of', numbers);
    $('progress').value = (ballot.number - 1) / ballot.of;
    const side = {left: texts.rate_left, right: texts.rate_right}[ballot.instruction];
    $('trap').textContent = side ? say('rate_trap_side', {side}) : say('rate_trap_digit', {n: ballot.instruction});
    $('trap').hidden = !ballot.instruction;
    $('said').textContent = texts.rate_loading;
    show('ballot', 'number');
    let urls = coming.id === ballot.ballot ? await coming.urls : null;
    urls ??= await fetched(ballot.videos);
    const ready = players.map((p) => new Promise((done) => {
      p.video.onloadeddata = done;
      p.video.onerror = () => { $('said').textContent = texts.rate_broken; done(); };
      p.video.src = urls[p.side];
    }));
    shown.forEach((url) => URL.revokeObjectURL(url));
    shown = Object.values(urls);
    await Promise.all(ready);
    $('play').disabled = false;
    if ($('said').textContent === texts.rate_loading) $('said').textContent = texts.rate_locked;
    name();
    if (again && last) {
      for (const [key, value] of Object.entries(last.answer)) {
        const input = form.querySelector(`[name="${key}"][value="${value}"]`);
        if (input) input.checked = true;
      }
      unlock();
      $('said').textContent = texts.rate_correcting;
    }
    coming = {id: ballot.coming_ballot, urls: null};
    if (ballot.coming_ballot) coming.urls = fetched(ballot.coming).catch(() => null);
  }

  const names = [...new Set([...form.querySelectorAll('input[type=radio]')].map((i) => i.name))];
  const answers = () => Object.fromEntries(names.map((n) => [n, form.querySelector(`[name="${n}"]:checked`)?.value])
    .filter(([, value]) => value !== undefined).map(([n, value]) => [n, /^\d$/.test(value) ? Number(value) : value]));

  function complete() { $('next').disabled = busy || !unlocked || names.some((n) => answers()[n] === undefined); }
  form.onchange = complete;

  async function send(answer) {
    if (busy) return;
    busy = true;
    complete();
    players.forEach((p) => p.video.pause());
    const sent = {token: ballot.token, answer, again,
      timings: again && last ? {...last.timings, answer_s: timings().answer_s} : timings()};
    for (let wait = 1; ; wait = Math.min(2 * wait, 15)) {
      try {
        const said = await ask('/answer', sent);
        last = again || ballot.training ? null : {answer, timings: sent.timings};
        busy = false;
        $('said').textContent = texts.rate_saved;
        if (said.explanation && !answer.cannot_play) return explain(said);
        await present(said.finished ? null : said.ballot ?? (await ask('/next')).ballot, false);
        if ($('said').textContent === texts.rate_locked) $('said').textContent = `${texts.rate_saved} ${texts.rate_locked}`;
        return;
      } catch (error) {
        if (error instanceof Refused) {
          busy = false;
          complete();
          if (!error.answered) throw error;
          last = null;
          return nextBallot(); // an answer got there although its acknowledgement was lost
        }
        $('said').textContent = texts.rate_unsaved; // the network: again, until it is saved
        await new Promise((done) => setTimeout(done, 1000 * wait));
      }
    }
  }

  let after = null;

  function explain(said) {
    after = said;
    const low = said.explanation === 'low';
    const side = {left: texts.rate_left, right: texts.rate_right}[said.explanation];
    $('explained').textContent = low ? texts.rate_right_low : say('rate_right_side', {side});
    $('explained').hidden = false;
    $('locked').disabled = true;
    $('broken').hidden = true;
    $('next').textContent = texts.rate_understood;
    $('next').disabled = false;
    $('next').focus();
  }

  form.onsubmit = (event) => {
    event.preventDefault();
    attempt(async () => {
      if (after) {
        const said = after;
        after = null;
        return present(said.finished ? null : said.ballot ?? (await ask('/next')).ballot, false);
      }
      if (unlocked) await send(answers());
    });
  };
  $('play').onclick = play;
  $('broken').onclick = () => attempt(() => send({cannot_play: true}));
  $('back').onclick = () => attempt(async () => {
    const {ballot: previous} = await ask('/back', {});
    if (previous) await present(previous, true);
  });
  $('pause').onclick = () => attempt(async () => {
    players.forEach((p) => p.video.pause());
    await ask('/pause', {});
    show('paused', 'paused-title');
  });
  $('go-on').onclick = () => attempt(nextBallot);

  const KEYS = {ArrowLeft: 'left', ArrowRight: 'right', ArrowDown: 'tie', ArrowUp: 'both_bad'};

  document.addEventListener('keydown', (event) => {
    if ($('ballot').hidden || event.ctrlKey || event.metaKey || event.altKey) return;
    const at = event.target, scale = at.closest?.('.scale');
    if (event.key === ' ' && !at.closest?.('button, input, summary, select')) {
      event.preventDefault();
      if (!$('play').disabled) play();
      return;
    }
    const wanted = KEYS[event.key];
    const choice = wanted && !scale && form.querySelector(`.choice [value="${wanted}"]`);
    if (choice) {
      event.preventDefault();
      if (!unlocked) { // before the answer, left and right choose what is heard
        const player = players.find((p) => p.side === wanted);
        if (player) listen(player);
      } else if (!$('locked').disabled) {
        choice.checked = true;
        choice.focus({preventScroll: true});
        complete();
      }
    }
    if (event.key === 'Enter' && !at.closest?.('button, summary') && !$('next').disabled) {
      event.preventDefault();
      form.requestSubmit();
    }
  });

  // The end -------------------------------------------------------------------------------------------------------

  async function finish() {
    const said = await ask('/end');
    $('code').textContent = said.code;
    $('code-part').hidden = !said.code;
    const own = [];
    if (said.share !== null) own.push(say('rate_agree_share', {share: Math.round(100 * said.share), n: said.ballots}));
    if (said.distance !== null) own.push(say('rate_agree_distance', {distance: said.distance.toFixed(1)}));
    $('own').textContent = own.join(' ') || texts.rate_agree_none;
    show('end', 'end-title');
  }
  $('delete').onclick = () => { $('sure').hidden = false; $('keep').focus(); };
  $('keep').onclick = () => { $('sure').hidden = true; $('delete').focus(); };
  $('delete-now').onclick = () => attempt(async () => {
    const {votes} = await ask('/withdraw', {});
    $('end-title').textContent = say('rate_deleted', {n: votes});
    for (const id of ['code-part', 'own', 'published', 'delete-part']) $(id).hidden = true;
    $('end-title').focus();
  });

  fits();
  show(main.dataset.phase === 'consent' ? 'consent' : 'none');
  if (main.dataset.phase !== 'consent') enter(main.dataset.phase);
})();
