'use strict';
(function () {
  const $ = (id) => document.getElementById(id);
  const meta = JSON.parse($('scw-meta').textContent);
  const font = { family: '"Inter", "Source Sans 3", -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif', size: 13, color: '#1b2330' };
  const config = { displaylogo: false, responsive: true, modeBarButtons: [['toImage'], ['zoom2d', 'pan2d'], ['zoomIn2d', 'zoomOut2d', 'resetScale2d']] };
  const quiet = { ...config, displayModeBar: false };
  const grid = { gridcolor: '#eef1f5', linecolor: '#c5ccd6', zeroline: false, ticks: 'outside', tickcolor: '#c5ccd6', ticklen: 4 };
  const whole = (v) => Math.round(v).toLocaleString('en-US').replace(/,/g, '\u202f');

  function fail(e) {
    console.error(e);
    $('error').textContent = 'The report could not be drawn: ' + (e && e.message || e);
    $('error').hidden = false;
    document.documentElement.dataset.state = 'error';
  }
  window.addEventListener('error', (e) => fail(e.error || e.message));
  window.addEventListener('unhandledrejection', (e) => fail(e.reason));

  // ------------------------------------------------------------------ data
  const cache = new Map();
  async function unpack(id) {
    const text = atob($(id).textContent);
    const bytes = new Uint8Array(text.length);
    for (let i = 0; i < bytes.length; ++i) bytes[i] = text.charCodeAt(i);
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
    return new Response(stream).arrayBuffer();
  }
  function load(ref) {
    if (!cache.has(ref.id)) cache.set(ref.id, (async () => {
      const buffer = await unpack(ref.id);
      if (ref.type === 'lines') return new TextDecoder().decode(buffer).split('\n').slice(0, -1);
      if (ref.type === 'f32') return new Float32Array(buffer);
      const codes = ref.type === 'u8' ? new Uint8Array(buffer) : new Uint16Array(buffer);
      if (ref.scale === undefined) return codes;
      const none = ref.type === 'u8' ? 255 : 65535;
      const values = new Float32Array(codes.length);
      for (let i = 0; i < codes.length; ++i) values[i] = codes[i] === none ? NaN : ref.offset + ref.scale * codes[i];
      return values;
    })());
    return cache.get(ref.id);
  }

  /** Indices by ascending value, NaN first: a counting sort, since values are multiples of `scale`. */
  function ascending(values, ref) {
    const none = ref.type === 'u8' ? 255 : 65535;
    const start = new Int32Array(none + 3), code = new Int32Array(values.length), order = new Int32Array(values.length);
    for (let i = 0; i < values.length; ++i) {
      code[i] = Number.isNaN(values[i]) ? 0 : 1 + Math.round((values[i] - ref.offset) / ref.scale);
      ++start[code[i] + 1];
    }
    for (let k = 1; k < start.length; ++k) start[k] += start[k - 1];
    for (let i = 0; i < values.length; ++i) order[start[code[i]]++] = i;
    return order;
  }

  // ------------------------------------------------------------------ colours
  // Okabe & Ito (without yellow and black, which are lost on white or read as text), then Tol's muted scheme; both are told apart in the
  // common forms of colour blindness. Beyond them hues by the golden angle at changing lightness.
  const palette = ['#0072B2', '#E69F00', '#009E73', '#D55E00', '#CC79A7', '#56B4E9', '#332288', '#999933', '#882255', '#44AA99',
    '#CC6677', '#117733', '#88CCEE', '#AA4499', '#DDCC77', '#6B4C3B', '#7F8C9B', '#1F3A5F', '#A6D854', '#F2A1A1'];
  function colourOf(i) {
    if (i < palette.length) return palette[i];
    const hue = (i * 137.508) % 360, light = [38, 55, 70][i % 3];
    return `hsl(${hue.toFixed(0)} 58% ${light}%)`;
  }
  const sequential = [[0, '#e4e7ec'], [0.02, '#dcdde9'], [0.2, '#b9aed6'], [0.45, '#8f6fbd'], [0.7, '#65309a'], [1, '#2d004b']];
  const viridis = 'Viridis';

  // ------------------------------------------------------------------ top
  $('title').textContent = meta.title;
  $('subtitle').textContent = meta.subtitle;
  for (const [label, value] of meta.facts) {
    const box = document.createElement('div'), dt = document.createElement('dt'), dd = document.createElement('dd');
    dt.textContent = label;
    dd.textContent = value;
    box.append(dt, dd);
    $('facts').append(box);
  }

  function webgl() {
    try {
      return !!document.createElement('canvas').getContext('webgl');
    } catch (e) {
      return false;
    }
  }

  // ------------------------------------------------------------------ map
  const clustering = meta.colourings.find((c) => c.name === meta.cluster_key) || meta.colourings.find((c) => c.categories);
  const map = { choice: null, size: 3, traces: [] };

  async function drawMap() {
    const plot = $('plot-map');
    const [x, y] = await Promise.all([load(meta.embedding.x), load(meta.embedding.y)]);
    const type = webgl() ? 'scattergl' : 'scatter';
    const [kind, index] = map.choice;
    const spec = kind === 'gene' ? meta.genes[index] : meta.colourings[index];
    const base = { type, mode: 'markers', hoverinfo: 'none' };
    const traces = [];
    map.rows = [];
    map.title = spec.name;
    const gather = (rows) => {
      const gx = new Float32Array(rows.length), gy = new Float32Array(rows.length);
      for (let i = 0; i < rows.length; ++i) {
        gx[i] = x[rows[i]];
        gy[i] = y[rows[i]];
      }
      map.rows.push(rows);
      return { x: gx, y: gy };
    };
    const opacity = meta.n > 200000 ? 0.7 : 0.85;
    const annotations = [];
    if (spec.categories) {
      const codes = await load(spec.codes);
      map.show = (i) => codes[i] === 65535 ? 'none' : spec.categories[codes[i]];
      const missing = codes.length - spec.sizes.reduce((a, b) => a + b, 0);
      const rows = spec.sizes.map((n) => new Int32Array(n));
      rows.push(new Int32Array(missing));
      const fill = new Int32Array(rows.length);
      for (let i = 0; i < codes.length; ++i) {
        const g = codes[i] === 65535 ? rows.length - 1 : codes[i];
        rows[g][fill[g]++] = i;
      }
      const few = spec.categories.length <= 60;
      for (let g = rows.length - 1; g >= 0; --g) {  // small clusters come last in order and lie below; legendrank keeps the legend in order
        if (rows[g].length === 0) continue;
        const last = g === rows.length - 1;
        const points = gather(rows[g]);
        traces.push({ ...base, ...points, name: (last ? 'none' : spec.categories[g]) + '  <span style="color:#7a8493">' + whole(rows[g].length) + '</span>',
          legendrank: g + 1, marker: { size: map.size, color: last ? '#c9ced6' : colourOf(g), opacity } });
        if (last || !few || spec !== clustering) continue;
        const mx = Array.from(points.x).sort((a, b) => a - b)[points.x.length >> 1];
        const my = Array.from(points.y).sort((a, b) => a - b)[points.y.length >> 1];
        annotations.push({ x: mx, y: my, text: '<b>' + spec.categories[g] + '</b>', showarrow: false, font: { ...font, size: 14 },
          bgcolor: 'rgba(255,255,255,0.75)', borderpad: 2 });
      }
    } else {
      const values = await load(spec.values);
      map.show = (i) => Number.isNaN(values[i]) ? 'none' : values[i].toPrecision(3);
      // High values are drawn last, on top.
      const order = ascending(values, spec.values);
      const sorted = new Float32Array(order.length);
      for (let i = 0; i < order.length; ++i) sorted[i] = values[order[i]];
      let low = kind === 'gene' ? Math.min(0, sorted[0] || 0) : NaN, high = NaN;
      let first = 0;
      while (first < sorted.length && Number.isNaN(sorted[first])) ++first;
      const at = (q) => sorted[Math.min(sorted.length - 1, first + Math.floor(q * (sorted.length - first)))];
      if (kind !== 'gene') low = at(0);
      high = kind === 'gene' ? at(1) : at(0.995);
      if (!(high > low)) high = low + 1;
      traces.push({ ...base, ...gather(order), name: spec.name, showlegend: false,
        marker: { size: map.size, color: sorted, cmin: low, cmax: high, colorscale: kind === 'gene' ? sequential : viridis, showscale: true,
          opacity: kind === 'gene' ? 0.95 : opacity,
          colorbar: { thickness: 12, len: 0.5, outlinewidth: 0, title: { text: spec.name, side: 'top', font: { ...font, size: 14 } }, tickfont: font } } });
    }
    const axis = { showgrid: false, zeroline: false, showticklabels: false, ticks: '', title: { font: { ...font, color: '#56606f' }, standoff: 4 } };
    const range = map.range || {};
    map.annotations = annotations;
    const layout = { font, height: Math.max(460, Math.min(660, window.innerHeight - 190)), margin: { l: 34, r: 10, t: 14, b: 34 }, hovermode: 'closest', dragmode: 'zoom', uirevision: 'map',
      paper_bgcolor: '#fff', plot_bgcolor: '#fff', annotations: $('labels').checked ? annotations : [],
      legend: { itemsizing: 'constant', font, y: 0.5, yanchor: 'middle', tracegroupgap: 2, title: { text: spec.categories ? '<b>' + spec.name + '</b>' : '' } },
      xaxis: { ...axis, ...range.x, title: { ...axis.title, text: meta.embedding.name + ' 1' } },
      yaxis: { ...axis, ...range.y, title: { ...axis.title, text: meta.embedding.name + ' 2' }, scaleanchor: 'x', scaleratio: 1 } };
    await Plotly.react(plot, traces, layout, config);
    plot.dataset.colour = spec.name;
    if (!map.ready) {
      map.ready = true;
      plot.on('plotly_hover', hover);
      plot.on('plotly_unhover', () => { $('tip').hidden = true; });
    }
  }

  async function hover(event) {
    const p = event.points[0];
    const i = map.rows[p.curveNumber][p.pointNumber];
    const tip = $('tip');
    const name = meta.cells ? (await load(meta.cells))[i] : 'cell ' + whole(i + 1);
    tip.replaceChildren();
    const b = document.createElement('b');
    b.textContent = name;
    tip.append(b);
    const line = (label, value) => {
      const d = document.createElement('div');
      d.textContent = label + ': ' + value;
      tip.append(d);
    };
    line(map.title, map.show(i));
    if (clustering && clustering.name !== map.title) {
      const codes = await load(clustering.codes);
      line(clustering.name, codes[i] === 65535 ? 'none' : clustering.categories[codes[i]]);
    }
    for (const c of meta.colourings.filter((c) => c.values && c.name !== map.title).slice(0, 4)) {
      const v = (await load(c.values))[i];
      line(c.name, v >= 1000 ? whole(v) : v.toPrecision(3));
    }
    const box = $('plot-map').getBoundingClientRect();
    tip.hidden = false;
    const left = event.event.clientX - box.left, top = event.event.clientY - box.top;
    tip.style.left = Math.max(0, Math.min(left + 14, box.width - tip.offsetWidth - 6)) + 'px';
    tip.style.top = Math.max(0, Math.min(top + 14, box.height - tip.offsetHeight - 6)) + 'px';
  }

  function choose(kind, index) {
    map.choice = [kind, index];
    $('colour').value = kind + ':' + index;
    $('gene').value = kind === 'gene' ? meta.genes[index].name : '';
    for (const b of document.querySelectorAll('#chips button')) b.classList.toggle('on', kind === 'gene' && b.dataset.gene === meta.genes[index].name);
    return drawMap();
  }
  function chooseGene(name) {
    const wanted = name.trim().toLowerCase();
    const i = meta.genes.findIndex((g) => g.name.toLowerCase() === wanted);
    $('gene-note').textContent = i >= 0 || wanted === '' ? '' : 'Not among the ' + meta.genes.length + ' genes of this report.';
    return i >= 0 ? choose('gene', i) : null;
  }

  async function startMap() {
    if (!meta.embedding) return;
    $('embedding').hidden = false;
    const select = $('colour');
    const groups = [['Groups', meta.colourings.map((c, i) => [c, i]).filter(([c]) => c.categories), 'column'],
      ['Numbers', meta.colourings.map((c, i) => [c, i]).filter(([c]) => !c.categories), 'column'], ['Genes', meta.genes.map((g, i) => [g, i]), 'gene']];
    for (const [label, list, kind] of groups) {
      if (list.length === 0) continue;
      const og = document.createElement('optgroup');
      og.label = label;
      for (const [item, i] of list) og.append(new Option(item.name, kind + ':' + i));
      select.append(og);
    }
    for (const name of meta.genes.map((g) => g.name).sort()) $('gene-list').append(new Option(name));
    map.size = Math.max(1.5, Math.min(7, 260 / Math.sqrt(meta.n)));
    $('point-size').value = map.size;
    select.addEventListener('change', () => {
      const [kind, i] = select.value.split(':');
      choose(kind, +i);
    });
    $('gene').addEventListener('change', () => chooseGene($('gene').value));
    $('gene').addEventListener('input', () => {
      if (meta.genes.some((g) => g.name === $('gene').value)) chooseGene($('gene').value);
    });
    $('point-size').addEventListener('input', () => {
      map.size = +$('point-size').value;
      Plotly.restyle($('plot-map'), { 'marker.size': map.size });
    });
    $('labels').addEventListener('change', () => Plotly.relayout($('plot-map'), { annotations: $('labels').checked ? map.annotations : [] }));
    const have = new Set(meta.genes.map((g) => g.name));
    meta.markers.forEach((m, g) => {
      const top = m.rows.map((r) => r[0]).filter((n) => have.has(n)).slice(0, 3);
      if (top.length === 0) return;
      const row = document.createElement('div');
      row.className = 'row';
      const name = document.createElement('span');
      name.className = 'name';
      const dot = document.createElement('i');
      dot.style.background = groupColour(m.group, g);
      name.append(dot, 'Markers of ' + m.group);
      row.append(name);
      for (const gene of top) {
        const b = document.createElement('button');
        b.type = 'button';
        b.textContent = b.dataset.gene = gene;
        b.addEventListener('click', () => chooseGene(gene));
        row.append(b);
      }
      $('chips').append(row);
    });
    const first = clustering ? meta.colourings.indexOf(clustering) : 0;
    if (meta.colourings.length > 0) await choose('column', first);
    else if (meta.genes.length > 0) await choose('gene', 0);
  }
  function groupColour(name, fallback) {
    const i = clustering ? clustering.categories.indexOf(name) : -1;
    return colourOf(i >= 0 ? i : fallback);
  }

  // ------------------------------------------------------------------ other plots
  async function drawClusters() {
    if (!clustering) return;
    $('clusters').hidden = false;
    const n = clustering.sizes.reduce((a, b) => a + b, 0);
    await Plotly.newPlot($('plot-clusters'), [{ type: 'bar', x: clustering.categories, y: clustering.sizes, marker: { color: clustering.categories.map((_, i) => colourOf(i)) },
      text: clustering.sizes.map((s) => (100 * s / n).toFixed(1) + '\u202f%'), textposition: 'outside', cliponaxis: false,
      hovertemplate: '%{x}: %{y} cells<extra></extra>' }],
    { font, height: 320, margin: { l: 60, r: 10, t: 24, b: 46 }, bargap: 0.25, xaxis: { ...grid, type: 'category', showgrid: false, title: { text: clustering.name } },
      yaxis: { ...grid, title: { text: 'cells' } } }, quiet);
  }

  async function drawDots() {
    const d = meta.dot_plot;
    if (!d) return;
    $('dots').hidden = false;
    const nGenes = d.genes.length, nGroups = d.groups.length;
    const x = [], y = [], size = [], colour = [], text = [];
    for (let j = 0; j < nGenes; ++j) {
      let low = Infinity, high = -Infinity;
      for (let g = 0; g < nGroups; ++g) {
        low = Math.min(low, d.mean[g * nGenes + j]);
        high = Math.max(high, d.mean[g * nGenes + j]);
      }
      for (let g = 0; g < nGroups; ++g) {
        const m = d.mean[g * nGenes + j], f = d.fraction[g * nGenes + j];
        x.push(j);
        y.push(g);
        size.push(Math.sqrt(f) * 17);
        colour.push(high > low ? (m - low) / (high - low) : 0);
        text.push('<b>' + d.genes[j] + '</b> in ' + d.groups[g] + '<br>' + (100 * f).toFixed(1) + '\u202f% of the cells<br>mean ' + m.toPrecision(3));
      }
    }
    const width = Math.max($('dots').clientWidth, 190 + nGenes * 21);
    const shapes = [];
    for (let j = 0; j < nGenes;) {
      let end = j;
      while (end < nGenes && d.group_of_gene[end] === d.group_of_gene[j]) ++end;
      const g = d.group_of_gene[j];
      shapes.push({ type: 'rect', layer: 'below', x0: j - 0.5, x1: end - 0.5, y0: g - 0.5, y1: g + 0.5, line: { width: 0 }, fillcolor: '#eef3f8' });
      j = end;
    }
    const key = [0.25, 0.5, 0.75, 1].map((f) => ({ type: 'scatter', mode: 'markers', x: [null], y: [null], name: (100 * f) + '\u202f%', marker: { size: Math.sqrt(f) * 17, color: '#7a8493' } }));
    await Plotly.newPlot($('plot-dots'), [{ type: 'scatter', mode: 'markers', x, y, text, hovertemplate: '%{text}<extra></extra>', showlegend: false,
      marker: { size, opacity: 1, color: colour, colorscale: sequential, cmin: 0, cmax: 1, line: { width: 0.5, color: '#b7bfca' }, showscale: true,
        colorbar: { thickness: 11, len: 0.5, lenmode: 'fraction', y: 0, yanchor: 'bottom', outlinewidth: 0, title: { text: 'scaled mean', side: 'top', font: { ...font, size: 12 } }, tickvals: [0, 1], tickfont: font } } }, ...key],
    { font, width, height: 150 + Math.max(nGroups * 24, 180), margin: { l: 70, r: 110, t: 10, b: 100 }, shapes, hovermode: 'closest',
      legend: { title: { text: 'share of cells', font: { ...font, size: 12 } }, itemsizing: 'trace', y: 1, itemclick: false, itemdoubleclick: false },
      xaxis: { ...grid, showgrid: false, range: [-0.7, nGenes - 0.3], tickvals: d.genes.map((_, i) => i), ticktext: d.genes, tickangle: -90, tickfont: { ...font, size: 12, style: 'italic' } },
      yaxis: { ...grid, showgrid: false, range: [nGroups - 0.4, -0.6], tickvals: d.groups.map((_, i) => i), ticktext: d.groups, title: { text: meta.cluster_key } } },
    { ...quiet, responsive: false });
  }

  async function drawQc() {
    if (meta.qc.length === 0) return;
    $('qc').hidden = false;
    const places = meta.qc.map(() => {  // all first: a place's width depends on how many there are
      const box = document.createElement('div'), plot = document.createElement('div'), note = document.createElement('p');
      plot.className = 'plot';
      note.className = 'hint';
      box.append(plot, note);
      $('qc-plots').append(box);
      return [plot, note];
    });
    for (const [k, h] of meta.qc.entries()) {
      const [plot, note] = places[k];
      note.textContent = h.note;
      const width = (h.high - h.low) / h.counts.length;
      const shapes = [], annotations = [];
      h.thresholds.forEach(({ value, keep }) => {
        shapes.push({ type: 'line', x0: value, x1: value, y0: 0, y1: 1, yref: 'paper', line: { color: '#b3261e', width: 1.5, dash: 'dash' } });
        const [x0, x1] = keep === 'above' ? [h.low, Math.max(h.low, value)] : [Math.min(value, h.high), h.high];
        shapes.push({ type: 'rect', layer: 'below', x0, x1, y0: 0, y1: 1, yref: 'paper', line: { width: 0 }, fillcolor: 'rgba(179, 38, 30, 0.07)' });
        annotations.push({ x: value, y: 1, yref: 'paper', yanchor: 'bottom', text: (keep === 'above' ? '≥ ' : '≤ ') + value, showarrow: false, font: { ...font, size: 12, color: '#8c1d18' } });
      });
      await Plotly.newPlot(plot, [{ type: 'bar', x: h.counts.map((_, i) => h.low + (i + 0.5) * width), y: h.counts, width,
        customdata: h.counts.map((_, i) => (h.low + i * width).toPrecision(4) + ' to ' + (h.low + (i + 1) * width).toPrecision(4)),
        marker: { color: '#4c86b8', line: { width: 0 } }, hovertemplate: '%{customdata}: %{y} cells<extra></extra>' }],
      { font, height: 290, margin: { l: 60, r: 14, t: 26, b: 46 }, bargap: 0, shapes, annotations, showlegend: false,
        xaxis: { ...grid, showgrid: false, title: { text: h.name } }, yaxis: { ...grid, title: { text: 'cells' } } }, quiet);
    }
  }

  async function drawGenes() {
    const v = meta.variable_genes;
    if (!v) return;
    $('genes').hidden = false;
    const [x, y, selected, names] = await Promise.all([load(v.x), load(v.y), load(v.selected), load(v.names)]);
    const part = (flag, name, colour) => {
      const rows = [];
      for (let i = 0; i < x.length; ++i) if (selected[i] === flag && Number.isFinite(x[i]) && Number.isFinite(y[i])) rows.push(i);
      return { type: webgl() ? 'scattergl' : 'scatter', mode: 'markers', name: name + '  <span style="color:#7a8493">' + whole(rows.length) + '</span>',
        x: Float32Array.from(rows, (i) => x[i]), y: Float32Array.from(rows, (i) => y[i]), text: rows.map((i) => names[i]),
        hovertemplate: '<b>%{text}</b><br>%{x:.3g}, %{y:.3g}<extra></extra>', marker: { size: 4, color: colour, opacity: 0.75 } };
    };
    await Plotly.newPlot($('plot-genes'), [part(0, 'other genes', '#b9c0ca'), part(1, 'variable genes', '#0072B2')],
      { font, height: 420, margin: { l: 64, r: 10, t: 34, b: 50 }, hovermode: 'closest', legend: { x: 0, y: 1, yanchor: 'bottom', orientation: 'h', itemsizing: 'constant', bgcolor: 'rgba(255,255,255,0.8)' },
        xaxis: { ...grid, title: { text: v.x_label }, type: v.log_x ? 'log' : 'linear' }, yaxis: { ...grid, title: { text: v.y_label }, type: v.log_y ? 'log' : 'linear' } }, config);
  }

  async function drawPca() {
    if (meta.pca.length === 0) return;
    $('pca').hidden = false;
    const pc = meta.pca.map((_, i) => i + 1);
    let total = 0;
    const sum = meta.pca.map((v) => 100 * (total += v));
    await Plotly.newPlot($('plot-pca'), [
      { type: 'bar', x: pc, y: meta.pca.map((v) => 100 * v), name: 'component', marker: { color: '#4c86b8' }, hovertemplate: 'PC %{x}: %{y:.3g}\u202f%<extra></extra>' },
      { type: 'scatter', mode: 'lines+markers', x: pc, y: sum, name: 'sum', yaxis: 'y2', line: { color: '#D55E00', width: 2 }, marker: { size: 4 }, hovertemplate: 'PC 1 to %{x}: %{y:.3g}\u202f%<extra></extra>' }],
    { font, height: 340, margin: { l: 60, r: 64, t: 34, b: 46 }, legend: { x: 0, y: 1, yanchor: 'bottom', orientation: 'h' }, bargap: 0.25,
      xaxis: { ...grid, showgrid: false, title: { text: 'principal component' } }, yaxis: { ...grid, title: { text: 'variance explained (%)' } },
      yaxis2: { ...grid, showgrid: false, overlaying: 'y', side: 'right', rangemode: 'tozero', title: { text: 'sum (%)' } } }, quiet);
  }

  // ------------------------------------------------------------------ table
  function startTable() {
    if (meta.markers.length === 0) return;
    $('markers').hidden = false;
    const columns = [['Cluster', 0], ['Rank', 1], ['Gene', 0], ['Score', 1], ['log₂ fold change', 1], ['p', 1], ['adjusted p', 1], ['% in cluster', 1], ['% elsewhere', 1]];
    const rows = [];
    meta.markers.forEach((m, g) => m.rows.forEach((r, i) => rows.push([m.group, i + 1, ...r, g])));
    const shown = columns.map((_, c) => rows.some((r) => r[c] !== null));
    const small = (v) => v === null ? '' : v === 0 ? '0' : Math.abs(v) < 1e-3 || Math.abs(v) >= 1e5 ? v.toExponential(2) : v.toPrecision(3);
    const format = [(v) => v, (v) => v, (v) => v, (v) => v === null ? '' : v.toFixed(2), (v) => v === null ? '' : v.toFixed(2), small, small,
      (v) => v === null ? '' : (100 * v).toFixed(1), (v) => v === null ? '' : (100 * v).toFixed(1)];
    const state = { sort: -1, down: false, page: 0, size: 25 };
    const head = document.createElement('tr');
    columns.forEach(([name, numeric], c) => {
      if (!shown[c]) return;
      const th = document.createElement('th');
      th.textContent = name;
      th.tabIndex = 0;
      if (numeric) th.className = 'num';
      const sort = () => {
        state.down = state.sort === c ? !state.down : [3, 4, 7, 8].includes(c);
        state.sort = c;
        for (const o of head.children) o.removeAttribute('aria-sort');
        th.setAttribute('aria-sort', state.down ? 'descending' : 'ascending');
        state.page = 0;
        draw();
      };
      th.addEventListener('click', sort);
      th.addEventListener('keydown', (e) => { if (e.key === 'Enter') sort(); });
      head.append(th);
    });
    $('marker-table').tHead.append(head);
    $('group').append(new Option('all clusters', ''));
    for (const m of meta.markers) $('group').append(new Option('cluster ' + m.group, m.group));
    const natural = new Intl.Collator('en', { numeric: true });
    const have = new Set(meta.embedding ? meta.genes.map((g) => g.name) : []);
    function selection() {
      const text = $('search').value.trim().toLowerCase(), group = $('group').value;
      const list = rows.filter((r) => (group === '' || r[0] === group) && (text === '' || r[2].toLowerCase().includes(text)));
      if (state.sort >= 0) {
        const c = state.sort, sign = state.down ? -1 : 1;
        list.sort((a, b) => a[c] === null ? 1 : b[c] === null ? -1 : sign * (typeof a[c] === 'string' ? natural.compare(a[c], b[c]) : a[c] - b[c]));
      }
      return list;
    }
    function draw() {
      const list = selection(), pages = Math.max(1, Math.ceil(list.length / state.size));
      state.page = Math.min(state.page, pages - 1);
      const body = document.createElement('tbody');
      for (const r of list.slice(state.page * state.size, (state.page + 1) * state.size)) {
        const tr = document.createElement('tr');
        columns.forEach(([, numeric], c) => {
          if (!shown[c]) return;
          const td = document.createElement('td');
          if (numeric) td.className = 'num';
          if (c === 0) {
            const s = document.createElement('span');
            s.className = 'swatch';
            s.style.background = groupColour(r[0], r[r.length - 1]);
            td.append(s, r[0]);
          } else if (c === 2 && have.has(r[2])) {
            td.className = 'gene';
            const b = document.createElement('button');
            b.type = 'button';
            b.textContent = r[2];
            b.title = 'show on the map';
            b.addEventListener('click', () => {
              chooseGene(r[2]);
              $('embedding').scrollIntoView();
            });
            td.append(b);
          } else {
            if (c === 2) td.className = 'gene';
            td.textContent = format[c](r[c]);
          }
          tr.append(td);
        });
        body.append(tr);
      }
      $('marker-table').replaceChild(body, $('marker-table').tBodies[0]);
      $('table-count').textContent = whole(list.length) + (list.length === 1 ? ' row' : ' rows');
      $('page').textContent = 'page ' + (state.page + 1) + ' of ' + pages;
      $('previous').disabled = state.page === 0;
      $('next').disabled = state.page === pages - 1;
    }
    const restart = () => {
      state.page = 0;
      draw();
    };
    $('search').addEventListener('input', restart);
    $('group').addEventListener('change', restart);
    $('previous').addEventListener('click', () => { --state.page; draw(); });
    $('next').addEventListener('click', () => { ++state.page; draw(); });
    const csvNames = ['cluster', 'rank', 'gene', 'score', 'log2_fold_change', 'p_value', 'adjusted_p_value', 'fraction_in', 'fraction_out'];
    const csv = () => {
      const cell = (v) => v === null ? '' : typeof v === 'string' && /[",\n]/.test(v) ? '"' + v.replace(/"/g, '""') + '"' : String(v);
      const use = columns.map((_, c) => c).filter((c) => shown[c]);
      return [use.map((c) => csvNames[c]).join(','), ...selection().map((r) => use.map((c) => cell(r[c])).join(','))].join('\n') + '\n';
    };
    window.scwMarkersCsv = csv;
    $('csv').addEventListener('click', () => {
      const a = document.createElement('a');
      a.href = URL.createObjectURL(new Blob([csv()], { type: 'text/csv' }));
      a.download = 'markers.csv';
      a.click();
      URL.revokeObjectURL(a.href);
    });
    draw();
  }

  function startRun() {
    const bytes = (b) => b >= 1e9 ? (b / 1e9).toFixed(2) + ' GB' : b >= 1e6 ? (b / 1e6).toFixed(1) + ' MB' : (b / 1e3).toFixed(0) + ' kB';
    const row = (cells, body) => {
      const tr = document.createElement('tr');
      for (const [text, numeric] of cells) {
        const td = document.createElement('td');
        td.textContent = text;
        if (numeric) td.className = 'num';
        tr.append(td);
      }
      body.append(tr);
    };
    for (const s of meta.steps) row([[s.name], [s.summary], [s.seconds.toFixed(2), true], [bytes(s.peak_bytes), true]], $('steps').tBodies[0]);
    for (const [k, v] of meta.parameters) row([[k], [v]], $('parameters').tBodies[0]);
    for (const [k, v] of meta.versions) row([[k], [v]], $('versions').tBodies[0]);
  }

  function startNav() {
    const sections = Array.from(document.querySelectorAll('main section')).filter((s) => !s.hidden);
    for (const s of sections) {
      const a = document.createElement('a');
      a.href = '#' + s.id;
      a.textContent = s.dataset.title;
      $('nav').append(a);
    }
    const mark = () => {
      const here = sections.filter((s) => s.getBoundingClientRect().top < 120).pop() || sections[0];
      for (const a of $('nav').children) a.classList.toggle('on', a.hash === '#' + here.id);
    };
    document.addEventListener('scroll', mark, { passive: true });
    mark();
  }

  (async () => {
    startTable();
    startRun();
    await startMap();
    await drawClusters();
    await drawDots();
    await drawQc();
    await drawGenes();
    await drawPca();
    startNav();
    window.scwChoose = choose;
    window.scwChooseGene = chooseGene;
    document.documentElement.dataset.state = 'ready';
  })().catch(fail);
})();
