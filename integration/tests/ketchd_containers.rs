use ketch_integration::Case;
use ketch_integration::ketchd::Engine;
use ketch_integration::tests;
tests![smoke];
fn smoke(case: &Case) {
    let engine = Engine::start(case);
    let out = engine.docker("run --rm busybox sh -c 'echo out; echo err >&2; exit 4'").exits(4);
    assert_eq!((out.text(), out.stderr.trim()), ("out", "err"));
    engine.end();
}
