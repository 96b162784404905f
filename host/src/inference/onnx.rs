//! `Graph`: a model of ONNX, run by tract. In the tenant's own process alone; it may use
//! any memory and any time, and may panic.

use tract_onnx::{
    prelude::*,
    tract_hir::internal::{Factoid as _, InferenceFact, InferenceOp},
};

use super::{
    InferenceError, InferenceErrorKind::*, NamedTensor, Tensor as Own, TensorType, tensor::TensorError,
};

/// Shapes for which a model is kept ready to run.
const PLANS_MAX: usize = 4;

pub struct Graph {
    model: InferenceModel,
    inputs: Vec<Input>,
    outputs: Vec<String>,
    /// For the shapes that came last, the very last one at the end.
    plans: Vec<(Vec<Fact>, Arc<TypedRunnableModel>)>,
}

struct Input {
    name: String,
    fact: InferenceFact,
}

/// Type and dimensions of one input, as it comes.
type Fact = (DatumType, Vec<usize>);

impl From<TensorError> for InferenceError {
    fn from(error: TensorError) -> Self {
        InferenceError::new(InvalidArgument, error.to_string())
    }
}

impl Graph {
    /// Reads a model. One whose inputs have fixed shapes is made ready at once.
    pub fn load(mut bytes: &[u8]) -> Result<Self, InferenceError> {
        let encoding =
            |error: TractError| InferenceError::new(InvalidEncoding, format!("no model of ONNX: {error:#}"));
        // Shapes between operators follow from those of the inputs; what else a model
        // says of them may be of other inputs.
        let framework = tract_onnx::onnx().with_ignore_output_shapes(true).with_ignore_value_info(true);
        let model = framework.model_for_read(&mut bytes).map_err(encoding)?;
        check_operators(&model)?;
        let name_of = |outlet: &OutletId| model.node(outlet.node).name.clone();
        let inputs = model.input_outlets().map_err(encoding)?.iter().map(|outlet| {
            let fact = model.outlet_fact(*outlet).map_err(encoding)?.clone();
            Ok(Input { name: name_of(outlet), fact })
        });
        let inputs = inputs.collect::<Result<Vec<_>, InferenceError>>()?;
        let outputs = model.output_outlets().map_err(encoding)?.iter();
        let outputs =
            outputs.map(|outlet| model.outlet_label(*outlet).map_or_else(|| name_of(outlet), str::to_owned));
        let outputs = outputs.collect();
        let mut graph = Graph { model, inputs, outputs, plans: Vec::new() };
        let fixed = graph.inputs.iter().map(|input| fixed(&input.fact)).collect::<Option<Vec<_>>>();
        if let Some(facts) = fixed {
            graph.plan(facts).map_err(|error| InferenceError::new(RuntimeError, format!("{error:#}")))?;
        }
        Ok(graph)
    }

    /// Gives every output of the model.
    pub fn run(&mut self, inputs: Vec<NamedTensor>) -> Result<Vec<NamedTensor>, InferenceError> {
        let mut given: Vec<Option<Tensor>> = self.inputs.iter().map(|_| None).collect();
        for (name, tensor) in inputs {
            let place = self.inputs.iter().position(|input| input.name == name);
            let wrong = |text: String| InferenceError::new(InvalidArgument, text);
            let Some(place) = place else {
                return Err(wrong(format!("the model has no input `{name}`: {}", list(&self.inputs))));
            };
            if given[place].is_some() {
                return Err(wrong(format!("the input `{name}` is there twice")));
            }
            given[place] = Some(self.inputs[place].take(&tensor)?);
        }
        let given = given.into_iter().zip(&self.inputs).map(|(tensor, Input { name, .. })| {
            tensor.ok_or_else(|| InferenceError::new(InvalidArgument, format!("there is no input `{name}`")))
        });
        let given: Vec<Tensor> = given.collect::<Result<_, _>>()?;
        let facts = given.iter().map(|tensor| (tensor.datum_type(), tensor.shape().to_vec())).collect();
        let plan = self.plan(facts).map_err(|error| {
            InferenceError::new(
                InvalidArgument,
                format!("the model does not take inputs of these shapes: {error:#}"),
            )
        })?;
        let outputs = plan
            .run(given.into_iter().map(Tensor::into_tvalue).collect())
            .map_err(|error| InferenceError::new(RuntimeError, format!("{error:#}")))?;
        let outputs = self.outputs.iter().cloned().zip(outputs);
        outputs.map(|(name, tensor)| Ok((name, own(&tensor)?))).collect()
    }

    /// The model, ready for inputs of these types and shapes.
    fn plan(&mut self, facts: Vec<Fact>) -> TractResult<Arc<TypedRunnableModel>> {
        if let Some(place) = self.plans.iter().position(|(known, _)| *known == facts) {
            let known = self.plans.remove(place);
            self.plans.push(known);
        } else {
            let mut model = self.model.clone();
            for (place, (kind, shape)) in facts.iter().enumerate() {
                model.set_input_fact(place, InferenceFact::dt_shape(*kind, shape))?;
            }
            let plan = model.into_optimized()?.into_runnable()?;
            if self.plans.len() == PLANS_MAX {
                self.plans.remove(0);
            }
            self.plans.push((facts, plan));
        }
        Ok(self.plans.last().expect("it was put there").1.clone())
    }
}

/// Operators that tract does not know stand in a model until it is to be run.
fn check_operators(model: &InferenceModel) -> Result<(), InferenceError> {
    for node in model.nodes() {
        let op: &dyn InferenceOp = &*node.op;
        let name = op.name();
        if let Some(name) = name.strip_prefix("Unimplemented(") {
            let name = name.trim_end_matches(')');
            return Err(InferenceError::new(UnsupportedOperation, format!("there is no operator `{name}`")));
        }
    }
    Ok(())
}

fn list(inputs: &[Input]) -> String {
    let names: Vec<_> = inputs.iter().map(|input| format!("`{}`", input.name)).collect();
    format!("it has {}", names.join(", "))
}

/// What an input must be, if the model leaves nothing open.
fn fixed(fact: &InferenceFact) -> Option<Fact> {
    let shape = fact.shape.as_concrete_finite().ok()??;
    Some((fact.datum_type.concretize()?, shape.to_vec()))
}

impl Input {
    /// The tensor in tract's form, if it fits.
    fn take(&self, tensor: &Own) -> Result<Tensor, InferenceError> {
        let Input { name, fact } = self;
        let kind = datum_type(tensor.kind())?;
        let wrong = |text: String| InferenceError::new(InvalidArgument, text);
        if let Some(wanted) = fact.datum_type.concretize()
            && wanted != kind
            // There is no type for truth.
            && !(wanted == DatumType::Bool && kind == DatumType::U8)
        {
            return Err(wrong(format!("the input `{name}` is {wanted:?}, not {kind:?}")));
        }
        let mut shape: Vec<usize> = tensor.dimensions().iter().map(|size| *size as usize).collect();
        // A single value, which `wasi:nn` writes as one dimension.
        if shape == [1] && fact.shape.as_concrete_finite().is_ok_and(|it| it.is_some_and(|it| it.is_empty()))
        {
            shape.clear();
        }
        let failed = |error: TractError| InferenceError::new(RuntimeError, format!("{error:#}"));
        let mut taken = Tensor::zero_dt(kind, &shape).map_err(failed)?;
        if !taken.as_bytes().is_empty() {
            taken.as_bytes_mut().copy_from_slice(tensor.data());
        }
        if !fact.shape.matches(&taken, None).map_err(failed)? {
            return Err(wrong(format!("the input `{name}` is {fact:?}, not {shape:?}")));
        }
        match fact.datum_type.concretize() {
            Some(wanted) if wanted != kind => Ok(taken.cast_to_dt(wanted).map_err(failed)?.into_owned()),
            _ => Ok(taken),
        }
    }
}

fn datum_type(kind: TensorType) -> Result<DatumType, InferenceError> {
    Ok(match kind {
        TensorType::F16 => DatumType::F16,
        TensorType::F32 => DatumType::F32,
        TensorType::F64 => DatumType::F64,
        TensorType::U8 => DatumType::U8,
        TensorType::I32 => DatumType::I32,
        TensorType::I64 => DatumType::I64,
        TensorType::Bf16 => {
            return Err(InferenceError::new(UnsupportedOperation, "tensors of bf16 are not there"));
        }
    })
}

/// The tensor in the types of `wasi:nn`, the next larger one if it has no such type.
fn own(tensor: &Tensor) -> Result<Own, InferenceError> {
    let kind = match tensor.datum_type() {
        DatumType::F16 => TensorType::F16,
        DatumType::F32 => TensorType::F32,
        DatumType::F64 => TensorType::F64,
        DatumType::U8 | DatumType::Bool => TensorType::U8,
        DatumType::I32 | DatumType::I8 | DatumType::I16 | DatumType::U16 => TensorType::I32,
        DatumType::I64 | DatumType::U32 | DatumType::TDim => TensorType::I64,
        other => {
            let text = format!("an output is {other:?}, which wasi:nn does not have");
            return Err(InferenceError::new(UnsupportedOperation, text));
        }
    };
    let failed = |error: TractError| InferenceError::new(RuntimeError, format!("{error:#}"));
    let cast = tensor.cast_to_dt(datum_type(kind)?).map_err(failed)?;
    let shape = match tensor.shape() {
        [] => vec![1],
        shape => {
            shape.iter().map(|size| u32::try_from(*size)).collect::<Result<_, _>>().map_err(|_| {
                InferenceError::new(TooLarge, format!("an output has the dimensions {shape:?}"))
            })?
        }
    };
    Ok(Own::new(shape, kind, cast.as_bytes().to_vec().into())?)
}
