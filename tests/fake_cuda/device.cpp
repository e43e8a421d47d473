// A CUDA device for a torch that is built without CUDA: its memory is the host's, its kernels are the CPU's.
//
// At torch's edge it is a card: tensors have device cuda:0, an allocator with a limit raises torch's OutOfMemoryError,
// operations that mix devices are errors, pinned memory is known, and every wait of the host for the card is counted.
// It cannot show races, lifetimes across streams, the numerics of a card's kernels, or speed.

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/native/TensorFactories.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/view_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <unordered_set>
#include <vector>

using namespace at;

namespace {

const Device kCard(DeviceType::CUDA, 0);
const DispatchKeySet kCardKeys(DispatchKey::CUDA);

// ---- Memory

std::atomic<size_t> allocated{0}, peak{0}, reserved{0}, limit{SIZE_MAX};
std::atomic<long> host_syncs{0};

void raise_to(std::atomic<size_t>& highest, size_t value) {
  size_t before = highest;
  while (value > before && !highest.compare_exchange_weak(before, value)) {
  }
}

void count_allocation(size_t bytes) {
  const size_t now = allocated += bytes;
  if (now > limit) {
    allocated -= bytes;
    TORCH_CHECK_WITH(OutOfMemoryError, false, "CUDA out of memory. Tried to allocate ", bytes >> 20, ".00 MiB.");
  }
  raise_to(peak, now);
  raise_to(reserved, now);
}

void* aligned_memory(size_t bytes) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 256, bytes ? bytes : 1)) throw std::bad_alloc();
  return memory;
}

struct CardAllocator final : Allocator {
  struct Block {
    void* memory;
    size_t bytes;
  };
  static void free_block(void* context) {
    auto* block = static_cast<Block*>(context);
    allocated -= block->bytes;
    std::free(block->memory);
    delete block;
  }
  DataPtr allocate(size_t bytes) override {
    count_allocation(bytes);
    void* memory = aligned_memory(bytes);
    return {memory, new Block{memory, bytes}, &free_block, kCard};
  }
  DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
} card_allocator;

std::mutex pinned_mutex;
std::unordered_set<const void*> pinned;

struct PinnedAllocator final : Allocator {
  static void free_pinned(void* memory) {
    {
      std::lock_guard<std::mutex> lock(pinned_mutex);
      pinned.erase(memory);
    }
    std::free(memory);
  }
  DataPtr allocate(size_t bytes) override {
    void* memory = aligned_memory(bytes);
    std::lock_guard<std::mutex> lock(pinned_mutex);
    pinned.insert(memory);
    return {memory, memory, &free_pinned, Device(DeviceType::CPU)};
  }
  DeleterFnPtr raw_deleter() const override { return &free_pinned; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
} pinned_allocator;

// ---- The device, its only stream and its events, for torch's C++ side

struct CardGuard final : c10::impl::NoOpDeviceGuardImpl<DeviceType::CUDA> {
  Device exchangeDevice(Device) const override { return kCard; }
  Device getDevice() const override { return kCard; }
  Stream getStream(Device) const noexcept override { return Stream(Stream::DEFAULT, kCard); }
  Stream getDefaultStream(Device) const override { return Stream(Stream::DEFAULT, kCard); }
  Stream getNewStream(Device, int) const override { return Stream(Stream::DEFAULT, kCard); }
  Stream exchangeStream(Stream) const noexcept override { return Stream(Stream::DEFAULT, kCard); }
  void record(void** event, const Stream&, const DeviceIndex, const EventFlag) const override {
    *event = reinterpret_cast<void*>(1);
  }
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void recordDataPtrOnStream(const DataPtr&, const Stream&) const override {}
  void synchronizeDevice(const DeviceIndex) const override {}
};
C10_REGISTER_GUARD_IMPL(CUDA, CardGuard);

}  // namespace

namespace at {
struct CUDAHooks final : CUDAHooksInterface {
  CUDAHooks(CUDAHooksArgs) {}
  void init() const override {}
  bool hasCUDA() const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  DeviceIndex deviceCount() const override { return 1; }
  int getNumGPUs() const override { return 1; }
  DeviceIndex current_device() const override { return 0; }
  void setCurrentDevice(DeviceIndex) const override {}
  DeviceIndex getCurrentDevice() const override { return 0; }
  DeviceIndex exchangeDevice(DeviceIndex) const override { return 0; }
  DeviceIndex maybeExchangeDevice(DeviceIndex) const override { return 0; }
  Device getDeviceFromPtr(void*) const override { return kCard; }
  Allocator* getCUDADeviceAllocator() const override { return &card_allocator; }
  Allocator* getPinnedMemoryAllocator() const override { return &pinned_allocator; }
  bool isPinnedPtr(const void* memory) const override {
    std::lock_guard<std::mutex> lock(pinned_mutex);
    return pinned.count(memory);
  }
};
REGISTER_CUDA_HOOKS(CUDAHooks)
}  // namespace at

namespace {

// ---- Tensors on both sides

bool on_card(const Tensor& tensor) { return tensor.defined() && tensor.device().type() == DeviceType::CUDA; }

// A CPU tensor on the memory of a card's tensor.
Tensor as_host(const Tensor& tensor) {
  if (!on_card(tensor)) return tensor;
  const auto options = TensorOptions().dtype(tensor.dtype()).device(kCPU);
  if (tensor.numel() == 0) return at::empty_strided(tensor.sizes(), tensor.strides(), options);
  Tensor owner = tensor;
  void* memory = const_cast<void*>(tensor.const_data_ptr());
  Tensor host = at::from_blob(memory, tensor.sizes(), tensor.strides(), [owner](void*) {}, options);
  return tensor.is_conj() ? host.conj() : host;
}

// A card's tensor on the memory of a CPU tensor that a kernel has just made.
Tensor as_card(const Tensor& tensor) {
  if (!tensor.defined() || on_card(tensor)) return tensor;
  struct Owner {
    Tensor tensor;
    size_t bytes;
  };
  const size_t bytes = tensor.storage().nbytes();
  count_allocation(bytes);
  auto free_owner = [](void* context) {
    auto* owner = static_cast<Owner*>(context);
    allocated -= owner->bytes;
    delete owner;
  };
  DataPtr memory(tensor.storage().mutable_data(), new Owner{tensor, bytes}, free_owner, kCard);
  auto storage = c10::make_intrusive<StorageImpl>(
      StorageImpl::use_byte_size_t(), bytes, std::move(memory), &card_allocator, /*resizable=*/true);
  auto card = at::detail::make_tensor<TensorImpl>(Storage(std::move(storage)), kCardKeys, tensor.dtype());
  card.unsafeGetTensorImpl()->set_storage_offset(tensor.storage_offset());
  card.unsafeGetTensorImpl()->set_sizes_and_strides(tensor.sizes(), tensor.strides());
  return card;
}

// ---- Operators that allocate, look at memory or wait; all others take the fallback below

Tensor empty(IntArrayRef sizes, std::optional<ScalarType> dtype, std::optional<Layout>, std::optional<Device>,
             std::optional<bool>, std::optional<MemoryFormat> format) {
  return at::detail::empty_generic(sizes, &card_allocator, kCardKeys, dtype_or_default(dtype), format);
}

Tensor empty_strided(IntArrayRef sizes, IntArrayRef strides, std::optional<ScalarType> dtype, std::optional<Layout>,
                     std::optional<Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(sizes, strides, &card_allocator, kCardKeys, dtype_or_default(dtype));
}

Tensor as_strided(const Tensor& self, IntArrayRef sizes, IntArrayRef strides, std::optional<int64_t> offset) {
  return at::native::as_strided_tensorimpl(self, sizes, strides, offset);
}

Tensor view(const Tensor& self, IntArrayRef sizes) { return at::native::view(self, sizes); }

Tensor reshape_alias(const Tensor& self, IntArrayRef sizes, IntArrayRef strides) {
  return at::native::_reshape_alias(self, sizes, strides);
}

const Tensor& resize_(const Tensor& self, IntArrayRef sizes, std::optional<MemoryFormat>) {
  auto* tensor = self.unsafeGetTensorImpl();
  tensor->set_sizes_contiguous(sizes);
  const size_t needed = (tensor->numel() + tensor->storage_offset()) * tensor->itemsize();
  auto storage = self.storage();
  if (needed > storage.nbytes()) {
    DataPtr memory = card_allocator.allocate(needed);
    std::memcpy(memory.get(), storage.data(), storage.nbytes());
    storage.set_data_ptr_noswap(std::move(memory));
    storage.set_nbytes(needed);
  }
  return self;
}

Tensor& set_storage(Tensor& self, Storage storage, int64_t offset, IntArrayRef sizes, IntArrayRef strides) {
  auto* tensor = self.unsafeGetTensorImpl();
  tensor->set_storage_keep_dtype(std::move(storage));
  tensor->set_storage_offset(offset);
  tensor->set_sizes_and_strides(sizes, strides);
  return self;
}

Tensor& copy_(Tensor& self, const Tensor& source, bool non_blocking) {
  if (source.device() != self.device() && !non_blocking) ++host_syncs;
  if (self.numel()) as_host(self).copy_(as_host(source));
  return self;
}

Tensor copy_from(const Tensor& source, const Tensor& target, bool) {
  if (source.numel()) as_host(target).copy_(as_host(source));
  return target;
}

Scalar local_scalar_dense(const Tensor& self) {  // what item() and float() call
  ++host_syncs;
  return at::_local_scalar_dense(as_host(self));
}

// ---- The fallback: any operator, by the CPU's kernel

// Operators that take CPU tensors beside the card's, as on a card.
bool mixes_devices(const std::string& name) {
  static const std::unordered_set<std::string> names{
      "aten::index", "aten::index_put_", "aten::_index_put_impl_", "aten::_fused_adamw_", "aten::_to_copy"};
  return names.count(name);
}

void check_same_device(const c10::FunctionSchema& schema, const std::vector<std::vector<Tensor>>& arguments) {
  bool card = false;
  const Tensor* host = nullptr;
  for (const auto& tensors : arguments) {
    for (const auto& tensor : tensors) {
      if (on_card(tensor)) card = true;
      else if (tensor.defined() && tensor.dim() > 0) host = &tensor;
    }
  }
  TORCH_CHECK(!card || !host || mixes_devices(schema.name()),
              "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! (",
              schema.operator_name(), ")");
}

std::vector<Tensor> tensors_of(const IValue& value) {
  if (value.isTensor()) return {value.toTensor()};
  if (value.isTensorList()) return value.toTensorVector();
  std::vector<Tensor> found;
  if (value.isOptionalTensorList()) {
    for (const std::optional<Tensor> tensor : value.toOptionalTensorList()) found.push_back(tensor.value_or(Tensor()));
  }
  return found;
}

IValue argument_on_host(const IValue& value, const std::vector<Tensor>& host) {
  if (value.isTensor()) return host[0];
  if (value.isTensorList()) return host;
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<Tensor>> list;
    for (const auto& tensor : host) {
      if (tensor.defined() && tensor.scalar_type() == kBool) ++host_syncs;  // a mask: its count sizes the result
      list.push_back(tensor.defined() ? std::optional<Tensor>(tensor) : std::nullopt);
    }
    return list;
  }
  return value.isDevice() ? IValue(Device(kCPU)) : value;
}

// The argument that a result is, or is a view of; -1: it is new.
int aliased_argument(const c10::FunctionSchema& schema, const c10::AliasInfo* result) {
  if (!result || result->beforeSets().empty()) return -1;
  for (size_t i = 0; i < schema.arguments().size(); ++i) {
    const auto* argument = schema.arguments()[i].alias_info();
    if (argument && argument->beforeSets() == result->beforeSets()) return static_cast<int>(i);
  }
  return -1;
}

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const size_t count = schema.arguments().size(), first = stack->size() - count;
  std::vector<std::vector<Tensor>> card(count), host(count);
  for (size_t i = 0; i < count; ++i) card[i] = tensors_of((*stack)[first + i]);
  check_same_device(schema, card);
  for (size_t i = 0; i < count; ++i) {
    for (const auto& tensor : card[i]) host[i].push_back(as_host(tensor));
    (*stack)[first + i] = argument_on_host((*stack)[first + i], host[i]);
  }
  op.callBoxed(stack);
  for (size_t i = 0; i < count; ++i) {  // a result that the caller gave, and that the kernel made larger
    const auto* alias = schema.arguments()[i].alias_info();
    if (card[i].size() != 1 || !on_card(card[i][0]) || !alias || !alias->isWrite()) continue;
    if (host[i][0].sizes().equals(card[i][0].sizes())) continue;
    resize_(card[i][0], host[i][0].sizes(), std::nullopt);
    if (card[i][0].numel()) as_host(card[i][0]).copy_(host[i][0]);
  }
  const size_t results = schema.returns().size(), first_result = stack->size() - results;
  for (size_t r = 0; r < results; ++r) {
    IValue& value = (*stack)[first_result + r];
    if (value.isTensorList()) {
      std::vector<Tensor> list;
      for (const auto& tensor : value.toTensorVector()) list.push_back(as_card(tensor));
      value = list;
    } else if (value.isTensor()) {
      const auto* alias = schema.returns()[r].alias_info();
      const int from = aliased_argument(schema, alias);
      if (from < 0 || card[from].size() != 1) {
        value = as_card(value.toTensor());
      } else if (alias->isWrite()) {
        value = card[from][0];
      } else {
        const Tensor made = value.toTensor(), base = card[from][0];
        const int64_t offset = base.storage_offset() + made.storage_offset();
        value = at::native::as_strided_tensorimpl(base, made.sizes(), made.strides(), offset);
      }
    }
  }
}

TORCH_LIBRARY_IMPL(_, CUDA, library) { library.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }

TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  library.impl("empty.memory_format", &empty);
  library.impl("empty_strided", &empty_strided);
  library.impl("as_strided", &as_strided);
  library.impl("view", &view);
  library.impl("_reshape_alias", &reshape_alias);
  library.impl("resize_", &resize_);
  library.impl("set_.source_Storage_storage_offset", &set_storage);
  library.impl("copy_", &copy_);
  library.impl("_copy_from", &copy_from);
  library.impl("_local_scalar_dense", &local_scalar_dense);
}

}  // namespace

extern "C" {
size_t fake_cuda_allocated() { return allocated; }
size_t fake_cuda_peak() { return peak; }
void fake_cuda_reset_peak() { peak = allocated.load(); }
size_t fake_cuda_reserved() { return reserved; }
void fake_cuda_empty_cache() { reserved = allocated.load(); }
void fake_cuda_limit(size_t bytes) { limit = bytes; }
long fake_cuda_take_syncs() { return host_syncs.exchange(0); }

// Call it when Python ends: the process then ends before the destructors of torch's statics, which would race with
// autograd's thread for the device.
void fake_cuda_end_without_destructors() {
  on_exit(
      [](int status, void*) {
        std::fflush(nullptr);
        _exit(status);
      },
      nullptr);
}
}
