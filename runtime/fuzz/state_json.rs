//! `state.json` and the kept filter, as other hands may have left them: read or refused, and what is read survives
//! being written.
#![no_main]

use ketch::plan::FilterPlan;
use ketch::state::State;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(state) = serde_json::from_slice::<State>(bytes) {
        let _bundle = state.config.bundle();
        let _annotations = state.config.annotations();
        let written = serde_json::to_vec(&state).expect("a state can be written");
        assert_eq!(serde_json::from_slice::<State>(&written).expect("and read"), state);
    }
    if let Ok(filter) = serde_json::from_slice::<FilterPlan>(bytes) {
        let written = serde_json::to_vec(&filter).expect("a filter can be written");
        assert_eq!(serde_json::from_slice::<FilterPlan>(&written).expect("and read"), filter);
    }
});
