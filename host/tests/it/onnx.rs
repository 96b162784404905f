//! Small models, written field by field after ONNX's `onnx.proto`, so that nothing of
//! what runs them has a part in it.

/// Types of elements, by ONNX's numbers.
pub const FLOAT: u64 = 1;
pub const UINT8: u64 = 2;
pub const INT8: u64 = 3;
pub const INT32: u64 = 6;
pub const INT64: u64 = 7;
pub const STRING: u64 = 8;
pub const BOOL: u64 = 9;
pub const FLOAT16: u64 = 10;
pub const DOUBLE: u64 = 11;

/// A message of protocol buffers, as it grows.
#[derive(Clone, Default)]
pub struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    pub fn number(mut self, field: u64, value: u64) -> Self {
        self.varint(field << 3);
        self.varint(value);
        self
    }

    pub fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint(field << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn text(self, field: u64, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    pub fn message(self, field: u64, message: &Message) -> Self {
        self.bytes(field, &message.0)
    }
}

/// A dimension that is fixed, or has a name.
#[derive(Clone, Copy)]
pub enum Size {
    Is(u64),
    Any(&'static str),
}
pub use Size::{Any, Is};

/// A graph with inputs, operators and outputs.
#[derive(Clone, Default)]
pub struct Model(Message);

impl Model {
    pub fn input(self, name: &str, kind: u64, shape: &[Size]) -> Self {
        Model(self.0.message(11, &value(name, kind, shape)))
    }

    pub fn output(self, name: &str, kind: u64, shape: &[Size]) -> Self {
        Model(self.0.message(12, &value(name, kind, shape)))
    }

    pub fn floats(self, name: &str, dims: &[u64], values: &[f32]) -> Self {
        let raw: Vec<u8> = values.iter().flat_map(|it| it.to_le_bytes()).collect();
        self.constant(name, FLOAT, dims, &raw)
    }

    pub fn integers(self, name: &str, dims: &[u64], values: &[i64]) -> Self {
        let raw: Vec<u8> = values.iter().flat_map(|it| it.to_le_bytes()).collect();
        self.constant(name, INT64, dims, &raw)
    }

    pub fn constant(self, name: &str, kind: u64, dims: &[u64], raw: &[u8]) -> Self {
        let dims = dims.iter().fold(Message::default(), |tensor, size| tensor.number(1, *size));
        let tensor = dims.number(2, kind).text(8, name).bytes(9, raw);
        Model(self.0.message(5, &tensor))
    }

    /// One whose values lie in a file.
    pub fn external(self, name: &str, dims: &[u64], file: &str) -> Self {
        let dims = dims.iter().fold(Message::default(), |tensor, size| tensor.number(1, *size));
        let location = Message::default().text(1, "location").text(2, file);
        let tensor = dims.number(2, FLOAT).text(8, name).message(13, &location).number(14, 1);
        Model(self.0.message(5, &tensor))
    }

    pub fn node(self, operator: &str, inputs: &[&str], output: &str) -> Self {
        let node = inputs.iter().fold(Message::default(), |node, name| node.text(1, name));
        Model(self.0.message(1, &node.text(2, output).text(3, output).text(4, operator)))
    }

    /// The whole file.
    pub fn file(self) -> Vec<u8> {
        let version = Message::default().text(1, "").number(2, 13);
        let graph = self.0.text(2, "g");
        Message::default().number(1, 8).message(7, &graph).message(8, &version).0
    }
}

fn value(name: &str, kind: u64, shape: &[Size]) -> Message {
    let shape = shape.iter().fold(Message::default(), |shape, size| {
        let size = match size {
            Is(size) => Message::default().number(1, *size),
            Any(name) => Message::default().text(2, name),
        };
        shape.message(1, &size)
    });
    let tensor = Message::default().number(1, kind).message(2, &shape);
    Message::default().text(1, name).message(2, &Message::default().message(1, &tensor))
}

/// y = x W + b for rows of x, any number of them.
pub fn linear(weights: &[&[f32]], bias: &[f32]) -> Vec<u8> {
    let (rows, columns) = (weights.len() as u64, bias.len() as u64);
    let flat: Vec<f32> = weights.iter().flat_map(|row| row.iter().copied()).collect();
    Model::default()
        .input("x", FLOAT, &[Any("rows"), Is(rows)])
        .floats("w", &[rows, columns], &flat)
        .floats("b", &[columns], bias)
        .node("MatMul", &["x", "w"], "xw")
        .node("Add", &["xw", "b"], "y")
        .output("y", FLOAT, &[Any("rows"), Is(columns)])
        .file()
}

/// Gives what it is given.
pub fn identity(kind: u64, shape: &[Size]) -> Vec<u8> {
    Model::default().input("x", kind, shape).node("Identity", &["x"], "y").output("y", kind, shape).file()
}

/// Of one number a square matrix of `size`, multiplied with itself `times` times.
pub fn powers(size: i64, times: usize) -> Vec<u8> {
    let mut model = Model::default()
        .input("x", FLOAT, &[Is(1), Is(1)])
        .integers("size", &[2], &[size, size])
        .node("Expand", &["x", "size"], "m0");
    for time in 0..times {
        let (from, to) = (format!("m{time}"), format!("m{}", time + 1));
        model = model.node("MatMul", &[&from, &from], &to);
    }
    let last = format!("m{times}");
    model.node("ReduceMax", &[&last], "y").output("y", FLOAT, &[Is(1), Is(1)]).file()
}
