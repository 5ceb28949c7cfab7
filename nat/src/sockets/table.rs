//! Things by number, each number the smallest that is free of those given out before.

/// Entries by number.
#[derive(Debug)]
pub(super) struct Table<T> {
    slots: Vec<Option<T>>,
    spare: Vec<u32>,
}

impl<T> Default for Table<T> {
    fn default() -> Table<T> {
        Table { slots: Vec::new(), spare: Vec::new() }
    }
}

impl<T> Table<T> {
    /// Puts one in: its number.
    pub(super) fn insert(&mut self, entry: T) -> u32 {
        if let Some(number) = self.spare.pop() {
            self.slots[number as usize] = Some(entry);
            return number;
        }
        let number = u32::try_from(self.slots.len()).expect("far fewer entries than that");
        self.slots.push(Some(entry));
        number
    }

    /// The one with that number.
    pub(super) fn get(&self, number: u32) -> Option<&T> {
        self.slots.get(number as usize)?.as_ref()
    }

    /// As [`Table::get`], to be changed.
    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.slots.get_mut(number as usize)?.as_mut()
    }

    /// Takes one out; its number may be given out again.
    pub(super) fn remove(&mut self, number: u32) -> Option<T> {
        let entry = self.slots.get_mut(number as usize)?.take()?;
        self.spare.push(number);
        Some(entry)
    }

    /// All, in order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.iter_from(0)
    }

    /// All from a number on, in order.
    pub(super) fn iter_from(&self, from: u32) -> impl Iterator<Item = (u32, &T)> {
        let slots = self.slots.get(from as usize..).unwrap_or_default();
        (from..).zip(slots).filter_map(|(number, slot)| Some((number, slot.as_ref()?)))
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.spare.len()
    }
}
