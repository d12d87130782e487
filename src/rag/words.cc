#include "rag/words.h"

#include <cctype>
#include <sstream>

namespace rk::rag {
namespace {

std::vector<std::string> split(const char* text) {
  std::vector<std::string> words;
  std::istringstream in(text);
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

const std::vector<std::string>& places() {
  static const auto words = split(
      "harbour orchard quarry library bakery station mill chapel market bridge garden cellar tower "
      "workshop meadow dock kitchen archive greenhouse courtyard stable tannery lighthouse foundry "
      "pier barn ferry brewery museum canal");
  return words;
}

const std::vector<std::string>& verbs() {
  static const auto words = split(
      "painted repaired measured carried cleaned described admired borrowed photographed hid "
      "sketched "
      "weighed sold found counted polished moved examined wrapped praised unpacked sorted covered "
      "restored lifted");
  return words;
}

const std::vector<std::string>& times() {
  static const auto words =
      split("morning evening afternoon winter summer autumn spring night week");
  return words;
}

// {a} adjective, {n} noun, {p} place, {v} verb, {t} time, {f} first name.
const std::vector<std::string>& templates() {
  static const std::vector<std::string> all = {
      "the {a} {n} at the {p} was {v} by {f} that {t}",
      "{f} {v} a {a} {n} while the {p} was still {a}",
      "nobody in the {p} remembered why the {n} had been {v} so often",
      "on a {a} {t} the {n} stood beside the {p} and seemed {a}",
      "{f} and {f} spoke about the {a} {n} for most of the {t}",
      "before the {t} ended, someone {v} the {n} and left it near the {p}",
      "a {a} {n} is of little use in a {a} {p}",
      "when {f} came back from the {p}, the {n} was gone",
      "the keeper of the {p} {v} every {n} with a {a} cloth",
      "it was a {a} {t}, and the {p} smelled of {n} and rain",
      "children from the {p} had {v} the {a} {n} twice",
      "{f} said that the {n} looked {a} in the light of the {t}",
      "behind the {p} there was a {n}, {a} and rarely {v}",
      "the letter about the {n} never reached the {p}",
      "most visitors {v} the {n} and forgot the {a} {p}",
      "in the {t} the road to the {p} is {a}",
  };
  return all;
}

const std::string& word_for(char kind, Random& random) {
  switch (kind) {
    case 'a':
      return random.of(adjectives());
    case 'n':
      return random.of(nouns());
    case 'p':
      return random.of(places());
    case 'v':
      return random.of(verbs());
    case 't':
      return random.of(times());
    default:
      return random.of(first_names());
  }
}

}  // namespace

const std::vector<std::string>& adjectives() {
  static const auto words = split(
      "amber bitter broad calm clever coarse copper crooked damp dusty eager faint fragile gentle "
      "golden grey heavy hollow humble ivory jolly little lively loud mellow narrow noisy odd pale "
      "patient plain proud quiet rapid rough round rusty salty scarlet shallow silver simple "
      "slender "
      "smooth solemn steep striped sturdy tall tender thin tidy velvet wide wooden young");
  return words;
}

const std::vector<std::string>& nouns() {
  static const auto words = split(
      "anchor apron arrow basket bell bench blanket boot bottle bowl brush bucket button cabinet "
      "candle carpet chain chair chest clock coat compass cradle curtain desk drum feather fence "
      "flute fork globe glove hammer harp helmet jacket kettle key ladder lantern lens lock map "
      "mirror needle net oar oven paddle pencil pillow pipe plough pocket rope saddle sail scarf "
      "shovel sickle spoon stove table teapot thimble ticket trumpet umbrella violin wagon wallet "
      "wheel whistle window");
  return words;
}

const std::vector<std::string>& first_names() {
  static const auto words = split(
      "Adela Bruno Carla Dmitri Edda Felix Greta Hanno Ilse Jonas Katrin Leon Mira Nils Olga Pavel "
      "Rosa Stefan Tilda Ulrik Vera Wanda Xaver Yara Zeno Anneke Boris Celia Darius Elena Fritz "
      "Gisela Henrik Ines Jakub Klara Ludo Marta Nadia Oskar");
  return words;
}

const std::vector<std::string>& last_names() {
  static const auto words = split(
      "Albrink Bergan Corvalt Dornick Ebersol Falkner Gradow Hollmer Ivarsen Jendrik Kastor "
      "Lindemar "
      "Morvath Nordal Ostrander Pellwig Quistorp Rendler Sommark Tolland Ullvar Vestergren Wendrow "
      "Yarnick Zellmar");
  return words;
}

const std::vector<std::string>& variable_names() {
  static const auto words = split(
      "BAKOR CELVU DIRAM ETOPI FAZUN GOLIB HUVEN IKRAS JOMEL KURET LAVIP MOSUD NEBRI OPTAN PULGE "
      "QIRVO RASEK SUNOL TEBAX UMIRD VOKAL WEPIN XAROG YUDEM ZILOP");
  return words;
}

std::string filler_sentence(Random& random) {
  const std::string& form = random.of(templates());
  std::string out;
  for (size_t i = 0; i < form.size(); ++i) {
    if (form[i] != '{') {
      out += form[i];
      continue;
    }
    out += word_for(form[i + 1], random);
    i += 2;
  }
  out[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(out[0])));
  return out + ".";
}

}  // namespace rk::rag
