//! Whether a component's function has the type that a contract asks for, compared
//! by structure across two sets of WIT. Serves the reading of components; a
//! difference found here would otherwise show as a trap on the first message.

use std::fmt;

use wit_parser::{Function, Handle, Resolve, Type, TypeDefKind, TypeId};

/// How deep types are followed: contracts nest six levels.
const DEPTH_MAX: u32 = 32;

/// Where a function's type first differs from the contract's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The way from the function to the difference, such as `process`, `result`.
    path: Vec<String>,
    expected: String,
    found: String,
}

impl Mismatch {
    /// The function is not there at all.
    pub fn absent(function: &str) -> Self {
        Mismatch { path: vec![function.to_owned()], expected: "a function".into(), found: "nothing".into() }
    }

    fn new(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Mismatch { path: Vec::new(), expected: expected.into(), found: found.into() }
    }

    fn within(mut self, step: impl Into<String>) -> Self {
        self.path.insert(0, step.into());
        self
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` has {}, expected {}", self.path.join("."), self.found, self.expected)
    }
}

/// Compares `found` with what the contract `expected`.
pub fn check(
    expected_in: &Resolve,
    expected: &Function,
    found_in: &Resolve,
    found: &Function,
) -> Result<(), Mismatch> {
    let sides = Sides { expected: expected_in, found: found_in };
    let named = |mismatch: Mismatch| mismatch.within(&expected.name);
    if expected.params.len() != found.params.len() {
        let count = |function: &Function| format!("{} parameters", function.params.len());
        return Err(named(Mismatch::new(count(expected), count(found))));
    }
    // Names of parameters are not part of how a function is called.
    for (want, have) in expected.params.iter().zip(&found.params) {
        sides.check(want.ty, have.ty, 0).map_err(|mismatch| named(mismatch.within(&want.name)))?;
    }
    sides.check_option(expected.result, found.result, 0).map_err(|mismatch| named(mismatch.within("result")))
}

struct Sides<'a> {
    expected: &'a Resolve,
    found: &'a Resolve,
}

impl Sides<'_> {
    fn check_option(&self, expected: Option<Type>, found: Option<Type>, depth: u32) -> Result<(), Mismatch> {
        match (expected, found) {
            (Some(expected), Some(found)) => self.check(expected, found, depth),
            (None, None) => Ok(()),
            (Some(expected), None) => Err(Mismatch::new(name_of(self.expected, expected), "nothing")),
            (None, Some(found)) => Err(Mismatch::new("nothing", name_of(self.found, found))),
        }
    }

    fn check(&self, expected: Type, found: Type, depth: u32) -> Result<(), Mismatch> {
        let (expected, found) =
            (through_aliases(self.expected, expected), through_aliases(self.found, found));
        let differ = || Err(Mismatch::new(name_of(self.expected, expected), name_of(self.found, found)));
        match (expected, found) {
            (Type::Id(_), Type::Id(_)) if depth >= DEPTH_MAX => differ(),
            (Type::Id(expected), Type::Id(found)) => self.check_defined(expected, found, depth + 1),
            (expected, found) if expected == found => Ok(()),
            _ => differ(),
        }
    }

    fn check_defined(&self, expected: TypeId, found: TypeId, depth: u32) -> Result<(), Mismatch> {
        use TypeDefKind as Def;
        let differ = || {
            Err(Mismatch::new(
                name_of(self.expected, Type::Id(expected)),
                name_of(self.found, Type::Id(found)),
            ))
        };
        match (&self.expected.types[expected].kind, &self.found.types[found].kind) {
            (Def::List(expected), Def::List(found)) | (Def::Option(expected), Def::Option(found)) => {
                self.check(*expected, *found, depth)
            }
            (Def::Result(expected), Def::Result(found)) => {
                self.check_option(expected.ok, found.ok, depth).map_err(|mismatch| mismatch.within("ok"))?;
                self.check_option(expected.err, found.err, depth).map_err(|mismatch| mismatch.within("err"))
            }
            (Def::Tuple(expected), Def::Tuple(found)) if expected.types.len() == found.types.len() => {
                let mut pairs = expected.types.iter().zip(&found.types).enumerate();
                pairs.try_for_each(|(place, (expected, found))| {
                    self.check(*expected, *found, depth)
                        .map_err(|mismatch| mismatch.within(place.to_string()))
                })
            }
            (Def::Record(expected), Def::Record(found)) => {
                let expected = expected.fields.iter().map(|field| (field.name.as_str(), Some(field.ty)));
                let found = found.fields.iter().map(|field| (field.name.as_str(), Some(field.ty)));
                self.check_members("field", expected.collect(), found.collect(), depth)
            }
            (Def::Variant(expected), Def::Variant(found)) => {
                let expected = expected.cases.iter().map(|case| (case.name.as_str(), case.ty));
                let found = found.cases.iter().map(|case| (case.name.as_str(), case.ty));
                self.check_members("case", expected.collect(), found.collect(), depth)
            }
            (Def::Enum(expected), Def::Enum(found)) => {
                let expected = expected.cases.iter().map(|case| (case.name.as_str(), None));
                let found = found.cases.iter().map(|case| (case.name.as_str(), None));
                self.check_members("case", expected.collect(), found.collect(), depth)
            }
            (Def::Handle(Handle::Own(expected)), Def::Handle(Handle::Own(found)))
            | (Def::Handle(Handle::Borrow(expected)), Def::Handle(Handle::Borrow(found))) => {
                self.check(Type::Id(*expected), Type::Id(*found), depth)
            }
            (Def::Resource, Def::Resource) => {
                let same = self.expected.types[expected].name == self.found.types[found].name;
                if same { Ok(()) } else { differ() }
            }
            _ => differ(),
        }
    }

    /// Fields of records, cases of variants and enums: names and order count.
    fn check_members(
        &self,
        what: &str,
        expected: Vec<(&str, Option<Type>)>,
        found: Vec<(&str, Option<Type>)>,
        depth: u32,
    ) -> Result<(), Mismatch> {
        for place in 0..expected.len().max(found.len()) {
            match (expected.get(place), found.get(place)) {
                (Some((want, want_type)), Some((have, have_type))) if want == have => self
                    .check_option(*want_type, *have_type, depth)
                    .map_err(|mismatch| mismatch.within(*want))?,
                (want, have) => {
                    let text = |member: Option<&(&str, Option<Type>)>| match member {
                        Some((name, _)) => format!("{what} `{name}`"),
                        None => format!("no further {what}"),
                    };
                    return Err(Mismatch::new(text(want), text(have)));
                }
            }
        }
        Ok(())
    }
}

fn through_aliases(resolve: &Resolve, mut r#type: Type) -> Type {
    while let Type::Id(id) = r#type
        && let TypeDefKind::Type(aliased) = resolve.types[id].kind
    {
        r#type = aliased;
    }
    r#type
}

/// How messages name a type: by its name if it has one, by its shape otherwise.
fn name_of(resolve: &Resolve, r#type: Type) -> String {
    let r#type = through_aliases(resolve, r#type);
    let Type::Id(id) = r#type else { return format!("`{}`", primitive(r#type)) };
    let defined = &resolve.types[id];
    match (&defined.name, &defined.kind) {
        (Some(name), kind) => format!("{} `{name}`", kind.as_str()),
        (None, TypeDefKind::List(Type::U8)) => "`list<u8>`".to_owned(),
        (None, kind) => format!("a {}", kind.as_str()),
    }
}

fn primitive(r#type: Type) -> &'static str {
    match r#type {
        Type::Bool => "bool",
        Type::U8 => "u8",
        Type::U16 => "u16",
        Type::U32 => "u32",
        Type::U64 => "u64",
        Type::S8 => "s8",
        Type::S16 => "s16",
        Type::S32 => "s32",
        Type::S64 => "s64",
        Type::F32 => "f32",
        Type::F64 => "f64",
        Type::Char => "char",
        Type::String => "string",
        Type::ErrorContext => "error-context",
        Type::Id(_) => "a defined type",
    }
}
