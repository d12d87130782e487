#include "main/demo_corpus.h"

namespace rk::cli {

const std::vector<serve::Document>& demo_documents() {
  static const std::vector<serve::Document> documents = {
      {"The lighthouse at Corran Head",
       "The lighthouse at Corran Head was first lit on 3 November 1868. It stands on a "
       "shelf of black slate, 41 metres above the sea, and was built by the engineer Adela "
       "Strand in three summers. The first winter tore away the scaffolding twice, so "
       "Strand had the lower courses dovetailed and pinned with bronze. The tower is "
       "round, 27 metres high, and painted white with two green bands.\n"
       "The first keeper was Tobias Venn, a former whaler, who served for nineteen years "
       "and wrote a line of weather into the log every three hours. His logs fill forty- "
       "four volumes. He noted the height of the swell in hands, as if the sea were a "
       "horse, and nobody could persuade him to use feet. His daughter Maren kept the "
       "light alone for nine days in February 1881 while he lay sick, and the harbour "
       "board paid her the full wage of a keeper.\n"
       "The lamp burned rape oil until 1893 and paraffin after that. Electric light came "
       "in 1937 by a cable from the town. The lens is a second-order Fresnel lens with "
       "sixteen panels, ground in Lorient, and floats in a bath of 210 litres of mercury. "
       "It turns once every forty seconds and shows two white flashes, visible for "
       "nineteen nautical miles in clear air.\n"
       "The station became automatic in 1984. The last keeper, Ida Morrow, handed the keys "
       "to the mayor and took the cat, Sextant, home with her. The keepers' cottage has "
       "been a weather station since 1991, and the lamp room opens to visitors on the "
       "first Sunday of each month from April to September."},
      {"The Corran ferry",
       "The ferry between Corran and the island of Little Haste has crossed the Narrow "
       "Sound since 1822. The first boat was rowed by six men and carried one cow or ten "
       "people, but not both. The fare was two pence, and a bishop crossed for nothing. A "
       "steam ferry, the Patience, came in 1874; she was slow and smoky and was loved so "
       "well that her bell still hangs in the school.\n"
       "The present ferry is the Grey Linnet, built in 2003 at the Olsen yard. She is 38 "
       "metres long, carries twenty-two cars and 140 passengers, and crosses the sound in "
       "twenty-five minutes. Her captain is Ruth Abara, who began as a deckhand on the "
       "older ferry Halcyon. The Grey Linnet has run on batteries since 2019. They are "
       "charged at the Corran quay during each stop by an arm that the crew call the "
       "heron, because it bends down to the ship and then stands on one leg.\n"
       "The ferry sails six times a day in winter and eleven times a day in summer. It "
       "does not sail when the wind is above fifty knots or when the swell in the sound is "
       "higher than three metres. In an average year this stops it on fourteen days. The "
       "longest stop was eleven days in January 1963, when the sound froze from shore to "
       "shore and the mail was carried over the ice on a sledge.\n"
       "Islanders pay half the fare. Bicycles, prams and musical instruments travel free, "
       "a rule made in 1911 after a quarrel about a double bass."},
      {"The herring years",
       "Between 1890 and 1926 Corran lived on herring. In the best year, 1907, the fleet "
       "of 112 boats landed 31,000 barrels. The fish were gutted and salted on the quay by "
       "crews of three women, two to gut and one to pack, and a good crew filled thirty "
       "barrels in a day. Most of the barrels went by steamer to Stettin and Riga.\n"
       "The boats were of a local kind called scaffers, with two masts, brown sails and a "
       "rounded stern. Each family marked its sail with a sign: a key for the Venns, a "
       "wheel for the Lowries, three dots for the Pellows. The cooper Jonas Pellow made "
       "the barrels of Swedish larch and was said to know a bad stave by its sound. His "
       "workshop on Cable Street employed seventeen men.\n"
       "The herring left slowly and then all at once. The landings fell below 5,000 "
       "barrels in 1921. In 1926 only 640 barrels were landed, and the curing yards closed "
       "that winter. Some said that the steam drifters from the south had taken too much, "
       "others blamed warmer water. A study of 1974 by the biologist Helen Arkwright found "
       "that both were right: the shoals had moved ninety miles north, and the young fish "
       "had been caught before they could spawn.\n"
       "Half of the young people left for the city within ten years. What remained of the "
       "trade is a smokehouse, run by the Lowrie family, which still smokes fish over oak "
       "and juniper. A single scaffer, the Bright Penny, survives; she was restored in "
       "1998 and sails in the regatta each August."},
      {"The storm of 1953",
       "The great storm reached Corran in the evening of 31 January 1953. The barometer at "
       "the lighthouse fell to 951 millibars, the lowest reading in its records. The wind "
       "stood in the north-west at eighty knots, and it came together with a spring tide, "
       "so that the sea rose 2.6 metres above the usual high water mark. By nine o'clock "
       "the waves were breaking over the harbour wall, and by ten the wall was breached in "
       "two places.\n"
       "Forty-three houses on Cable Street and Salt Lane were flooded. The baker Edwin "
       "Lowrie rang the bell of Saint Brannoc's church for five hours to wake the lower "
       "town, and for this reason nobody drowned in Corran itself. At sea it was worse. "
       "The coaster Margarethe, with a cargo of timber, lost her rudder off the Haste "
       "rocks. The lifeboat Constance, with eight men under the coxswain Peter Quill, made "
       "three runs to her and brought off all eleven of her crew.\n"
       "The damage was counted at 212,000 pounds. A new harbour wall of concrete was begun "
       "in 1955 and finished in 1958; it is 640 metres long and a metre and a half higher "
       "than the old one. Its flood gate closes by hand, with a wheel that takes two "
       "people, and it is tried on the last Saturday of every January.\n"
       "A brass line in the doorway of the chemist's shop shows how high the water stood. "
       "Peter Quill was given a gold medal and kept it, according to his widow, in a tin "
       "with the fish hooks. The lifeboat Constance is now in the town museum."},
      {"The seabirds of Little Haste",
       "The island of Little Haste has an area of 2.3 square kilometres and about sixty "
       "people, but in June more than 90,000 birds. The commonest is the guillemot, with "
       "some 52,000 birds on the western cliffs, followed by the kittiwake and the "
       "razorbill. Puffins nest in the turf above the cliffs. There were 4,100 pairs of "
       "puffins in 2022, against 2,700 in 2005.\n"
       "The rise came after the rats were removed. Rats had reached the island in 1889 "
       "from the wreck of the barque Emmeline, and they ate eggs and chicks for more than "
       "a century. In the winter of 2008 a team led by the ecologist Samir Doyle laid bait "
       "on a grid of 25 metres over the whole island. The last sign of a rat was found in "
       "March 2009, and the island was declared free of them in 2011. Since then storm "
       "petrels, which had been lost, have bred in the old stone walls again.\n"
       "Visitors may walk the cliff path, which is five kilometres long, but must keep to "
       "the landward side of the ropes from April to the end of July. Dogs are not allowed "
       "on the island in these months. Before anyone leaves the ferry, a warden looks "
       "through bags for stowaway mice, and is said to have found one tortoise.\n"
       "The birds are counted every year in the first week of June by volunteers, who each "
       "watch one square of the cliff for an hour. The counts are kept at the weather "
       "station in the old keepers' cottage, together with ringing records that go back to "
       "1934. The oldest known bird of the island is a razorbill that was ringed in 1979 "
       "and seen again in 2017."},
      {"The museum on Salt Lane",
       "The Corran town museum stands on Salt Lane, in a net loft built in 1832. It was "
       "founded in 1961 by the schoolteacher Winifred Oake, who had collected objects from "
       "her pupils for thirty years and had run out of cupboards. It opens every day "
       "except Monday, from ten to five. Entry costs four pounds; children enter free.\n"
       "The collection has 8,400 objects. The largest is the lifeboat Constance, which "
       "fills the ground floor, so that the wall had to be taken down and built again "
       "around her. The smallest is a tooth of a narwhal calf, sold to a sailor as the "
       "tooth of a mermaid. The oldest is an iron anchor of about 1560, raised in 1978 "
       "from the bed of the Narrow Sound by divers who were looking for an outboard motor.\n"
       "On the upper floor there are the forty-four weather logs of the first lighthouse "
       "keeper, which climate researchers have copied and put into tables, and a room "
       "about the herring trade with a cooper's bench, a gutting knife and a recording of "
       "the last packers, made in 1969. The women sing on it, and one of them laughs so "
       "hard that the song has to begin again. It is the object that visitors ask for "
       "most.\n"
       "The director is Caleb Nwosu, who came in 2014. Under him the museum has won a "
       "national prize for small museums, in 2018, for an exhibition on knots that could "
       "be touched and untied. Its current exhibition, Fog, runs until October and holds "
       "nine fog signals, one of which is sounded at noon. The neighbours have been given "
       "ear plugs and a year of free entry."},
      {"The Corran regatta",
       "The Corran regatta is held on the second weekend of August. It began in 1887 as a "
       "race for fishing boats, with a ham as the prize, and today has seven races. The "
       "oldest race, the Haste Cup, leads from the harbour around Little Haste and back, a "
       "course of fourteen nautical miles. The record is one hour and forty-eight minutes, "
       "sailed by Nora Pellow in the yawl Kestrel in 2011.\n"
       "The race that draws the greatest crowd is the barrel race on Sunday morning. Each "
       "crew of three paddles a herring barrel, cut in half, across the inner harbour with "
       "wooden spoons. No crew has ever finished dry. The baker's crew has won it nine "
       "times, and is suspected of using larger spoons. The prize is a loaf in the form of "
       "a lobster.\n"
       "The regatta is run by a committee of twelve, with Gwen Lowrie as its chair since "
       "2016. It has 230 volunteers and costs about 65,000 pounds a year, of which a third "
       "comes from the sale of smoked fish. Sailing boats without engines pay no fee. Any "
       "boat that is rescued by another must, under rule 19, buy supper for the crew that "
       "rescued it.\n"
       "The regatta has been cancelled only four times outside the wars: in 1926 after the "
       "herring failed, in 1953 because the harbour wall lay open, in 2001 and in 2020. On "
       "the evening of Saturday lanterns are set on the water, one for each person of the "
       "town who was lost at sea. There are 187 names. They are read aloud from the steps "
       "of the harbour office, and while they are read the lighthouse stays dark."},
  };
  return documents;
}

const std::vector<DemoQuestion>& demo_questions() {
  static const std::vector<DemoQuestion> questions = {
      {"Who was the first keeper of the lighthouse at Corran Head?", {0, 1, 2, 3, 4, 5, 6}},
      {"How many boats were in the herring fleet in 1907?", {3, 4, 5, 6, 0, 1, 2}},
      {"What is the name of the captain of the ferry Grey Linnet?", {5, 2, 6, 1, 4, 0}},
      {"Who founded the Corran town museum?", {6, 5, 3, 0, 2}},
  };
  return questions;
}

}  // namespace rk::cli
