//! Square matrix products beside `PyTorch`'s.

use ds_core::DType;

use crate::{
    Result, inputs,
    peer::Peer,
    sample::{Side, Spread, alternate, mean_seconds, paired, print},
};

/// Every size in both dtypes.
pub(crate) fn figure() -> Result<()> {
    for dtype in [DType::F32, DType::BF16] {
        for (n, calls) in [(512_u32, 20), (1024, 5), (2048, 1), (4096, 1)] {
            size(dtype, n, calls)?;
        }
    }
    Ok(())
}

fn size(dtype: DType, n: u32, calls: u32) -> Result<()> {
    let stream = ds_tests::cpu()?.default_stream()?;
    let a = inputs::numbers(stream, dtype, &[n.into(), n.into()])?;
    let b = inputs::numbers(stream, dtype, &[n.into(), n.into()])?;
    let mut ours = || {
        ds_ops::matmul::matmul(stream, &a, &b)?;
        Ok(stream.synchronize()?)
    };
    let mut torch = Peer::python(&format!("matmul {dtype} {n}"))?;
    let mut sides: Vec<Side<'_>> = vec![Box::new(|| mean_seconds(calls, &mut ours))];
    sides.extend(torch.as_mut().map(|torch| torch.side(calls)));
    let seconds = alternate(&mut sides)?;
    let rate = Spread::of(
        seconds[0]
            .iter()
            .map(|s| 2.0 * f64::from(n).powi(3) / s / 1e9),
    );
    let figure = format!("matmul {dtype} {n}");
    print(&figure, rate, "GFLOP/s", "", "2 n^3 / s");
    if let Some(theirs) = seconds.get(1) {
        let ratio = paired(&seconds[0], theirs, |own, theirs| theirs / own);
        print(&format!("{figure}, to PyTorch"), ratio, "x", "", "s by s");
    }
    Ok(())
}
