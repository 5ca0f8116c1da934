//! Adam over 100 million parameters, beside the pinned C loop, `PyTorch` and `DeepSpeed`.

use ds_core::DType;
use ds_ops::adam::{AdamConfig, AdamTensors, adam_step};

use crate::{
    Result, inputs,
    peer::Peer,
    sample::{Side, Spread, alternate, mean_seconds, paired, print},
};

const ELEMENTS: u32 = 100_000_000;
const PAIRS: [(DType, DType); 5] = [
    (DType::F32, DType::F32),
    (DType::BF16, DType::F32),
    (DType::BF16, DType::BF16),
    (DType::F16, DType::F32),
    (DType::F16, DType::F16),
];

/// Every pair of dtypes.
pub(crate) fn figure() -> Result<()> {
    PAIRS
        .iter()
        .try_for_each(|&(param, state)| pair(param, state))
}

/// Reads parameter, gradient and both moments, writes all but the gradient.
fn bytes_per_parameter(param: DType, state: DType) -> usize {
    3 * param.size_bytes() + 4 * state.size_bytes()
}

fn pair(param: DType, state: DType) -> Result<()> {
    let stream = ds_tests::cpu()?.default_stream()?;
    let shape = [i64::from(ELEMENTS)];
    let params = inputs::numbers(stream, param, &shape)?;
    let grads = inputs::numbers(stream, param, &shape)?;
    let exp_avg = inputs::zeros(stream, state, &shape)?;
    let exp_avg_sq = inputs::zeros(stream, state, &shape)?;
    let mut step = 0;
    let mut ours = || {
        step += 1;
        let tensors = AdamTensors {
            params: &[&params],
            grads: &[&grads],
            exp_avg: &[&exp_avg],
            exp_avg_sq: &[&exp_avg_sq],
        };
        adam_step(stream, tensors, None, step, &AdamConfig::default())?;
        Ok(stream.synchronize()?)
    };

    let mut peers = Vec::new();
    match Peer::probe(&format!("adam {ELEMENTS}")) {
        Ok(peer) => peers.push(("the pinned C loop (f32)", 28, peer)),
        Err(e) => eprintln!("without the pinned C loop: {e}"),
    }
    let bytes = bytes_per_parameter(param, state);
    for (name, work) in [
        ("PyTorch's fused AdamW", "torch_adam"),
        ("DeepSpeed's CPUAdam", "deepspeed_adam"),
    ] {
        if work == "torch_adam" && param != state {
            continue;
        }
        match Peer::python(&format!("{work} {param} {state} {ELEMENTS}")) {
            Ok(peer) => peers.extend(peer.map(|peer| (name, bytes, peer))),
            Err(e) => eprintln!("without {name}: {e}"),
        }
    }

    let names: Vec<_> = peers
        .iter()
        .map(|(name, bytes, _)| (*name, *bytes))
        .collect();
    let mut sides: Vec<Side<'_>> = vec![Box::new(|| mean_seconds(1, &mut ours))];
    sides.extend(peers.iter_mut().map(|(_, _, peer)| peer.side(1)));
    let seconds = alternate(&mut sides)?;
    let rate = |bytes: usize, seconds: f64| f64::from(ELEMENTS) * bytes as f64 / seconds / 1e9;
    let figure = format!("adam {param} with {state} moments");
    let formula = format!("100M x {bytes} B / s");
    let own = Spread::of(seconds[0].iter().map(|&s| rate(bytes, s)));
    print(&figure, own, "GB/s", "", &formula);
    for ((name, peer_bytes), theirs) in names.into_iter().zip(&seconds[1..]) {
        let ratio = paired(&seconds[0], theirs, |a, b| {
            rate(bytes, a) / rate(peer_bytes, b)
        });
        print(
            &format!("{figure}, to {name}"),
            ratio,
            "x",
            ">= 1",
            "GB/s by GB/s",
        );
    }
    Ok(())
}
