(async function () {
  "use strict";
  const root = document.documentElement;
  const every = (selector) => Array.from(document.querySelectorAll(selector));
  const fail = (text) => {
    const box = document.getElementById("trouble");
    box.textContent = text;
    box.hidden = false;
    root.dataset.state = "failed";
  };
  if (!window.niivue) return fail("assets/niivue.umd.js is not beside this folder. Copy the whole output folder.");
  if (!window.m2unetView) return fail("viewer_data.js is not beside this page. Copy the whole folder of the case.");
  if (!document.createElement("canvas").getContext("webgl2")) {
    return fail("This browser has no WebGL 2. The report shows slices of the scan as a picture.");
  }
  const { Niivue, NVImage, SLICE_TYPE, SHOW_RENDER } = window.niivue;
  const shown = window.m2unetView.layers;
  const viewer = new Niivue({
    backColor: [0, 0, 0, 1],
    crosshairColor: [1, 1, 1, 0.55],
    crosshairWidth: 1,
    crosshairGap: 6,
    dragAndDropEnabled: false,
    isRadiologicalConvention: true,
    sagittalNoseLeft: true,
    multiplanarShowRender: SHOW_RENDER.NEVER,
    multiplanarPadPixels: 4,
    isColorbar: false,
    isNearestInterpolation: false,
    fontColor: [1, 0.76, 0.1, 1],
    showAllOrientationMarkers: true,
    fontMinPx: 15,
    atlasOutline: document.getElementById("outline")?.checked ? 1 : 0,
    logLevel: "silent",
  });
  const visible = {};
  const voxels = {};
  const table = (layer) => {
    const map = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: [""] };
    for (const { code, name, colour } of layer.labels) {
      map.R.push(colour[0]);
      map.G.push(colour[1]);
      map.B.push(colour[2]);
      map.A.push(255);
      map.I.push(code);
      map.labels.push(name);
    }
    return map;
  };
  const place = (id) => shown.findIndex((layer) => layer.id === id);
  // A label that is not wanted is taken out of the image: an outline would be drawn around a transparent one.
  const choose = (layer, image) => {
    const wanted = visible[layer.id];
    image.img = voxels[layer.id].map((code) => (wanted.has(code) ? code : 0));
  };
  const strength = (layer) => {
    const box = document.getElementById("show-" + layer.id);
    return box.checked ? document.getElementById("strength-" + layer.id).value / 100 : 0;
  };
  const three = [
    { sliceType: SLICE_TYPE.AXIAL, position: [0, 0, 0.62, 1] },
    { sliceType: SLICE_TYPE.CORONAL, position: [0.62, 0, 0.38, 0.5] },
    { sliceType: SLICE_TYPE.SAGITTAL, position: [0.62, 0.5, 0.38, 0.5] },
  ];
  let view = "multi";
  const refresh = () => {
    shown.forEach((layer, number) => {
      if (layer.id === "ct") viewer.volumes[number].opacity = view === "render" && shown.length > 1 ? 0 : 1;
      else viewer.volumes[number].opacity = strength(layer);
    });
    viewer.updateGLVolume();
    root.dataset.layers = shown.filter((layer) => layer.id === "ct" || strength(layer) > 0).map((layer) => layer.id).join(" ");
  };
  viewer.onLocationChange = (place) => {
    const lines = [];
    (place.values || []).forEach((found, number) => {
      const layer = shown[number];
      if (!layer) return;
      if (layer.id === "ct") lines.push(Math.round(found.value) + " HU (to 8 HU)");
      const label = layer.labels.find((item) => item.code === Math.round(found.value));
      if (label) lines.push(label.name);
      if (layer.kind === "heat") lines.push("evidence for severe " + Math.round(found.value) + " %");
    });
    document.getElementById("readout").textContent = lines.join("\n");
  };
  try {
    await viewer.attachToCanvas(document.getElementById("view"));
    for (const layer of shown) {
      visible[layer.id] = new Set(layer.labels.map((item) => item.code));
      const image = await NVImage.loadFromBase64({
        base64: layer.nifti,
        name: layer.id + ".nii.gz",
        colormap: layer.kind === "heat" ? "warm" : "gray",
        opacity: layer.opacity,
        cal_min: layer.id === "ct" ? {{ window[0] }} : layer.kind === "heat" ? 10 : NaN,
        cal_max: layer.id === "ct" ? {{ window[1] }} : layer.kind === "heat" ? 100 : NaN,
      });
      if (layer.kind === "labels") {
        image.setColormapLabel(table(layer));
        voxels[layer.id] = image.img.slice();
      }
      viewer.addVolume(image);
    }
    viewer.setSliceType(SLICE_TYPE.MULTIPLANAR);
    viewer.setCustomLayout(three);
    viewer.scene.crosshairPos = window.m2unetView.focus;
    refresh();
    viewer.createOnLocationChange();
  } catch (error) {
    return fail("The view could not be drawn: " + error.message);
  }
  const press = (button, group) => every(group).forEach((other) => other.setAttribute("aria-pressed", String(other === button)));
  const views = { multi: SLICE_TYPE.MULTIPLANAR, axial: SLICE_TYPE.AXIAL, coronal: SLICE_TYPE.CORONAL, sagittal: SLICE_TYPE.SAGITTAL, render: SLICE_TYPE.RENDER };
  every("[data-view]").forEach((button) => button.addEventListener("click", () => {
    view = button.dataset.view;
    press(button, "[data-view]");
    if (view === "multi") viewer.setCustomLayout(three);
    else viewer.clearCustomLayout();
    viewer.setSliceType(views[view]);
    refresh();
  }));
  every("[data-low]").forEach((button) => button.addEventListener("click", () => {
    press(button, "[data-low]");
    viewer.volumes[0].cal_min = Number(button.dataset.low);
    viewer.volumes[0].cal_max = Number(button.dataset.high);
    viewer.updateGLVolume();
  }));
  every("input[data-layer]").forEach((input) => input.addEventListener("input", () => {
    const number = place(input.dataset.layer);
    if (input.dataset.code) {
      const codes = visible[input.dataset.layer];
      if (input.checked) codes.add(Number(input.dataset.code));
      else codes.delete(Number(input.dataset.code));
      choose(shown[number], viewer.volumes[number]);
    }
    refresh();
  }));
  const outline = document.getElementById("outline");
  if (outline) outline.addEventListener("input", () => viewer.setAtlasOutline(outline.checked ? 1 : 0));
  window.m2unetViewer = viewer;
  root.dataset.state = "ready";
})();
