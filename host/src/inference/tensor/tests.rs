use super::*;

#[test]
fn a_tensor_has_the_data_that_its_dimensions_say() {
    for (dimensions, kind, bytes, is_one) in [
        (&[][..], TensorType::F32, 4, true),
        (&[1], TensorType::F32, 4, true),
        (&[2, 3], TensorType::F16, 12, true),
        (&[2, 3], TensorType::Bf16, 12, true),
        (&[2, 3], TensorType::I64, 48, true),
        (&[2, 3], TensorType::F64, 47, false),
        (&[2, 3], TensorType::U8, 7, false),
        (&[0, u32::MAX], TensorType::I32, 0, true),
        (&[u32::MAX, u32::MAX, 2], TensorType::U8, 0, false),
        (&[1; RANK_MAX], TensorType::U8, 1, true),
        (&[1; RANK_MAX + 1], TensorType::U8, 1, false),
    ] {
        let made = Tensor::new(dimensions.to_vec(), kind, vec![0; bytes].into());
        assert_eq!(made.is_ok(), is_one, "{dimensions:?} {kind:?} {bytes}: {made:?}");
    }
    let error = Tensor::new(vec![2], TensorType::F32, vec![0; 7].into()).expect_err("a byte is missing");
    assert_eq!(error.to_string(), "7 bytes of data, and F32 of [2] has 8");
}
